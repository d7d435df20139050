# make            train_golf for this machine          make baseline   data, train, export, score
#                                                       make flat       its control of blocks used once
# make test       every test, no network               make test-bugs  are planted bugs noticed?
# make check      black-box checks of the program      make asan       tests under ASan and UBSan
# make golden     25 steps of every preset and system, in every build: the recorded bits?
#                 BUILDS=this ARMS='^tiny$': those with such names
# make alone      the core alone, each system alone: build, tests, the default model's bits
# make without    for each system: its line deleted, then make test
# make tokenizers tokenizers of every kind against the SentencePiece library, BYTES=10000000 of text each
# make commands   every command of the READMEs as written, after make baseline (an hour)
# make study N=1  one of dev/studies                   make report     their tables and figures again
# make tune CAP=256000 MINUTES=60 FAMILY=flat          the best options under a cap: also recursive, any;
#                 DATA= SEED= OUT= JOBS= and more, see dev/tune.sh
# make quantizers, make sharing, make papers: all systems at one size, as the papers have them; these and
#                 study: SEEDS=3 ARMS="a b" QUICK=1 KEEP=1
# make plot RUN=runs/mine     its curves, with gnuplot; RUN="a b c": several beside each other
# make submission RUN=runs/mine AUTHOR="..." GITHUB_ID=...   a records folder of Parameter Golf, checked
# make compilers  every compiler of Debian, musl, machines of 32 bits: builds, bits, tests
# make tsan       threads under ThreadSanitizer   make memcheck   memory under valgrind
# make faults     full disks, failing reads, kills, at every call: is anything lost? (Linux)
# make interop    safetensors: the rules of the format, and other programs' readers
# make fuzz SECONDS=60        libFuzzer against all that reads files: so long for each target; RUNS=1000000 instead
# make fuzz-coverage          the lines of the parsers that its corpus reaches
# make format     clang-format over the C files        make info       what was found on this machine
# make help       this text
#
# Settings (with make -B): CC=clang  NO_OMP=1 (one thread)  MARCH= (portable code)  OPT=-O2
# CORE=1: without any further system, as train_golf_core and with objects of its own
# MPI=1: train_golf_mpi, of which many processes on many machines train one model, see dev/mpi.h

# make sets CC=cc by itself, which `?=` would not notice
ifeq ($(origin CC),default)
  CC := cc
endif
OPT ?= -O3

# mpicc is CC with MPI's headers and libraries; Open MPI and MPICH have their own names for CC.
ifeq ($(MPI),1)
  ifeq ($(shell command -v mpicc 2> /dev/null),) # make 3.81 runs `command` only through a shell
    $(error make MPI=1 needs mpicc and mpirun, found no mpicc. Debian: apt-get install libopenmpi-dev openmpi-bin)
  endif
  export OMPI_CC := $(CC)
  export MPICH_CC := $(CC)
  override CC := mpicc
endif

# A flag counts when a program built with it also runs: here, where train_golf will, since the folder for
# temporary files may forbid that.
try = $(shell mkdir -p build && d=$$(mktemp -d build/probe.XXXXXX) && { printf '%s\n' '$(2)' > $$d/a.c; \
  $(CC) $(1) $$d/a.c -o $$d/a > /dev/null 2>&1 && $$d/a 2> /dev/null && echo '$(1)'; rm -rf $$d; })
NOTHING := int main(void) { return 0; }
THREADS := int omp_get_max_threads(void); int main(void) { return omp_get_max_threads() < 1; }
ifeq ($(origin MARCH),undefined)
  MARCH := $(or $(call try,-march=native,$(NOTHING)),$(call try,-mcpu=native,$(NOTHING)))
  MISSED := $(if $(MARCH),,-march=native)
endif
ifneq ($(NO_OMP),1)
  OMP := $(call try,-fopenmp,$(THREADS))
  ifeq ($(OMP),)  # Apple's clang: Homebrew's libomp, whose place is told also where it is not installed
    BREW := $(shell brew --prefix libomp 2> /dev/null)
    ifneq ($(BREW),)
      OMP := $(call try,-Xpreprocessor -fopenmp -I$(BREW)/include -L$(BREW)/lib -lomp,$(THREADS))
    endif
  endif
  MISSED += $(if $(OMP),,OpenMP)
endif
# What is missed without having been declined makes the program many times slower.
SAY_MISSED = $(if $(strip $(MISSED)),@echo '*** SLOW: $(CC) has no $(strip $(MISSED)) here; see make info' >&2)

WARN := -Wall -Wextra -Wshadow -Wdouble-promotion -Wmissing-prototypes
# clang may not vectorise exp() in double where asked to; the loop is right all the same.
PASS := $(call try,-Wno-pass-failed,$(NOTHING))
# Multiply-adds are written where they are meant: see golf.h on rounding. The others change no number: they
# spare the code that would set errno and the flags of exceptions.
ROUNDING := -ffp-contract=off -fno-math-errno -fno-trapping-math
BASE = -std=gnu11 $(ROUNDING) $(MARCH) $(OMP) $(WARN) $(PASS) $(CFLAGS)
# Without OpenMP its pragmas mean nothing, and saying so is no use to anyone.
NO_THREADS := -Wno-unknown-pragmas -Wno-source-uses-openmp $(call try,-fopenmp-simd,$(NOTHING))
ifeq ($(OMP),)
  BASE += $(NO_THREADS)
endif
ifeq ($(CORE),1)
  BASE += -DGOLF_CORE
  PROGRAM := train_golf_core
  TESTS := build/core
else
  PROGRAM := train_golf
  TESTS := build/tests
endif
ifeq ($(MPI),1)
  BASE += -DGOLF_MPI
  PROGRAM := train_golf_mpi
endif
GIT_REV := $(shell git describe --always --dirty 2> /dev/null || echo unknown)
CODE_BYTES := $(shell cat train_golf.c golf.h data/tokenizer.h | wc -c | tr -d ' ')
FACTS = -DGOLF_CODE_BYTES=$(CODE_BYTES) -DGOLF_GIT_REV='"$(GIT_REV)"'
SYSTEMS := $(wildcard dev/systems/*.h dev/systems/shared/*.h)
SOURCES := train_golf.c golf.h data/tokenizer.h data/prepare.c dev/export.h dev/bench/bench.h dev/mpi.h dev/check/selftest.h dev/check/certify.h $(SYSTEMS) Makefile

$(PROGRAM): $(SOURCES)
	$(SAY_MISSED)
	$(CC) $(BASE) $(OPT) $(FACTS) -o $@ train_golf.c -lm

# Every test program, with float and (where it matters) with double numbers; the longest first.
TEST_PROGRAMS := $(addprefix $(TESTS)/,systems_double golf_double options_float systems_float \
  files_float fit_float golf_float kernels_double kernels_float tokenizer_float input_float certify_float \
  commands_float)
TEST_SOURCES := $(SOURCES) dev/check/check.h
TEST_OPT ?= -O1
# Small models enter many parallel regions with one thread: a third of their time with OpenMP.
ALONE = $(filter-out $(OMP),$(BASE)) $(NO_THREADS)
FLAGS = $(if $(filter %_double,$@),$(ALONE) -DGOLF_DOUBLE,$(if $(filter %options_float,$@),$(ALONE),$(BASE)))
TEST = $(CC) $(FLAGS) $(TEST_OPT) -o $@ $< -lm

$(TESTS)/golf_%: test_golf.c $(TEST_SOURCES) | $(TESTS)
	$(TEST)
$(TESTS)/kernels_%: dev/check/kernels.c $(TEST_SOURCES) | $(TESTS)
	$(TEST)
$(TESTS)/systems_%: dev/check/systems.c $(TEST_SOURCES) | $(TESTS)
	$(TEST)
$(TESTS)/options_%: dev/check/options.c $(TEST_SOURCES) | $(TESTS)
	$(TEST)
$(TESTS)/input_%: dev/check/input.c $(TEST_SOURCES) | $(TESTS)
	$(TEST)
$(TESTS)/tokenizer_%: dev/check/tokenizer.c $(TEST_SOURCES) | $(TESTS)
	$(TEST)
$(TESTS)/files_%: dev/check/files.c $(TEST_SOURCES) | $(TESTS)
	$(TEST)
$(TESTS)/fit_%: dev/check/fit.c $(TEST_SOURCES) | $(TESTS)
	$(TEST)
$(TESTS)/certify_%: dev/check/certify.c $(TEST_SOURCES) | $(TESTS)
	$(TEST)
$(TESTS)/commands_%: dev/check/commands.c $(TEST_SOURCES) | $(TESTS)
	$(TEST)
$(TESTS):
	mkdir -p $@

# One job is to build a program and to run it: make itself would first build them all.
$(TEST_PROGRAMS:=.said): %.said: always
	@$(MAKE) -s $*
	@OMP_WAIT_POLICY=$${OMP_WAIT_POLICY:-passive} $* > $@ 2>&1 || echo "$*: exit status $$?" >> $@
always:

test:
	$(SAY_MISSED)
	@$(MAKE) -s -j2 $(TEST_PROGRAMS:=.said)
	@dev/check/count.sh $(TEST_PROGRAMS:=.said)

test-bugs:
	@CC="$(CC)" FLAGS="$(BASE)" dev/check/bugs.sh

check: train_golf
	dev/check/cli.sh

# This build, then the others.
golden: train_golf
	@BUILDS="$(BUILDS)" ARMS="$(ARMS)" dev/check/builds.sh

without:
	@CC="$(CC)" dev/check/without.sh

tokenizers: train_golf
	@nice -n 10 dev/check/tokenizers.py --bytes=$(or $(BYTES),10000000)

commands: train_golf
	@AS_WRITTEN=1 dev/check/readme.sh

alone:
	@CC="$(CC)" QUICK="$(QUICK)" dev/check/alone.sh

baseline: train_golf
	@data/get.sh sotu
	@dev/baseline.sh recursive

flat: train_golf
	@data/get.sh sotu
	@dev/baseline.sh flat

study: train_golf
	@SEEDS="$(SEEDS)" ARMS="$(ARMS)" QUICK="$(QUICK)" dev/studies/study.sh $(N)

tune: train_golf
	@CAP="$(CAP)" MINUTES="$(MINUTES)" FAMILY="$(FAMILY)" DATA="$(DATA)" SEED="$(SEED)" OUT="$(OUT)" JOBS="$(JOBS)" \
	  STEPS="$(STEPS)" TRIALS="$(TRIALS)" REFINE="$(REFINE)" SPACE="$(SPACE)" dev/tune.sh

quantizers sharing papers: train_golf
	@SEEDS="$(SEEDS)" ARMS="$(ARMS)" QUICK="$(QUICK)" dev/studies/study.sh dev/records/$@

report:
	@dev/studies/report.sh

plot:
	@dev/plot.sh $(RUN)

# What is given to make is in its commands' environment.
submission: train_golf
	@SOURCES="$(SOURCES)" CC="$(CC)" dev/submission.sh

interop: train_golf
	@dev/check/interop.sh

faults: train_golf
	@CC="$(CC)" dev/check/faults.sh

# Finite differences and the trials of options, the same code thousands of times, take minutes here; the others
# run it all once.
asan:
	$(MAKE) -B test OPT='-O1 -g' CFLAGS='-fsanitize=address,undefined -fno-sanitize-recover=all' \
	  TEST_PROGRAMS='$(filter-out %_double %/options_float,$(TEST_PROGRAMS))'
	@rm -rf build

compilers:
	@BUILDS="$(BUILDS)" dev/check/compilers.sh

tsan memcheck:
	@CC="$(if $(filter command environment,$(origin CC)),$(CC))" dev/check/sanitize.sh $@

# clang alone, whatever CC is.
fuzz:
	@EACH="$(or $(SECONDS),60)" RUNS="$(RUNS)" TARGETS="$(TARGETS)" dev/fuzz/run.sh

fuzz-coverage:
	@TARGETS="$(TARGETS)" dev/fuzz/run.sh coverage

C_FILES = train_golf.c golf.h test_golf.c data/tokenizer.h data/prepare.c dev/export.h dev/bench/bench.h dev/mpi.h $(wildcard dev/check/*.[ch]) dev/fuzz/fuzz.c $(filter-out %/systems.h,$(SYSTEMS))
format:
	@dev/check/format.sh $(C_FILES)

info:
	@echo "compiler  $(CC): $(shell $(CC) --version | head -n 1)"
	@echo "machine   $(or $(MARCH),portable code: -march=native not found, or MARCH= given)"
	@echo "OpenMP    $(or $(OMP),not found, or NO_OMP=1 given: one thread. Debian: libomp-dev for clang; macOS: brew install libomp)"
	@echo "data      $(if $(wildcard data/sotu/tokenizer.model),data/sotu,none yet: data/get.sh sotu)"

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

clean:
	rm -rf train_golf train_golf_core train_golf_mpi build

.PHONY: always test test-bugs check golden alone without tokenizers commands baseline flat study tune quantizers sharing papers report plot submission interop faults asan fuzz fuzz-coverage compilers tsan memcheck format info help clean
