/* The further systems that are compiled in, one line each: delete a line, and the system
 * is gone from program, help, files and tests; add one, and it is there. In this order
 * they are asked how a tensor is stored, so that those with tensors of their own come
 * first; their hooks run in this order, and their tensors stand in it in files: put a new
 * one at the end of its group. */
#ifndef GOLF_CORE
/* with tensors of their own */
#include "protect.h"
#include "pquant.h"
#include "lora.h"
#include "parameter_golf.h"
#include "moeut.h"
#include "fips.h"
#include "low_rank_embedding.h"
/* ways to store the projections */
#include "cluscomp.h"
#include "quest.h"
#include "binary_weights.h"
#include "masked_ste.h"
#include "qat.h"
/* what training starts from, aims at, and how deep it goes */
#include "init_from.h"
#include "unshare.h"
#include "teacher.h"
#include "depth_schedule.h"
#include "early_exit.h"
/* what a score may be besides */
#include "adapt.h"
/* instruments */
#include "instruments.h"
#include "perturb.h"
#endif
