# make | test | test-bugs | baseline | asan | info | help
CFLAGS = -O3 -march=native -std=gnu11 -Wall -Wextra -Wshadow -Wdouble-promotion -fopenmp -g
DEFS = -DGOLF_CODE_BYTES=$(shell cat train_golf.c golf.h | wc -c) -DGOLF_GIT_REV='"x"'
train_golf: train_golf.c golf.h Makefile
	$(CC) $(CFLAGS) $(DEFS) -o $@ train_golf.c -lm
prepare: data/prepare
data/prepare: data/prepare.c train_golf.c golf.h
	$(CC) $(CFLAGS) $(DEFS) -o $@ data/prepare.c -lm
