/* The further systems that are compiled in, one line each: delete a line, and the system is gone from
 * program, help, files and tests; add one, and it is there. Their tensors follow those of the core in
 * files in the order of these lines: put a new one at the end. */
#ifndef GOLF_CORE
#endif
