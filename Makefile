# make            train_golf for this machine          make baseline   data, train, export, score
# make test       every test, no network               make test-bugs  are planted bugs noticed?
# make check      black-box checks of the program      make asan       tests under ASan and UBSan
# make study N=1  one of dev/studies                   make report     their tables and figures again
# make quantizers, make sharing: all systems at one size; these and study: SEEDS=3 ARMS="a b" QUICK=1
# make info       what was found on this machine       make help       this text
#
# Settings (with make -B): CC=clang  NO_OMP=1 (one thread)  MARCH= (portable code)  OPT=-O2

# make sets CC=cc by itself, which `?=` would not notice
ifeq ($(origin CC),default)
  CC := cc
endif
OPT ?= -O3

# A flag counts when a program built with it also runs.
try = $(shell d=$$(mktemp -d); echo '$(2)' > $$d/a.c; \
  $(CC) $(1) $$d/a.c -o $$d/a > /dev/null 2>&1 && $$d/a && echo '$(1)'; rm -rf $$d)
RUNS := int main(void) { return 0; }
THREADS := int omp_get_max_threads(void); int main(void) { return omp_get_max_threads() < 1; }
MARCH ?= $(or $(call try,-march=native,$(RUNS)),$(call try,-mcpu=native,$(RUNS)))
ifneq ($(NO_OMP),1)
  OMP := $(call try,-fopenmp,$(THREADS))
  ifeq ($(OMP),)  # Apple's clang: Homebrew's libomp
    BREW := $(shell brew --prefix libomp 2> /dev/null)
    ifneq ($(BREW),)
      OMP := -Xpreprocessor -fopenmp -I$(BREW)/include -L$(BREW)/lib -lomp
    endif
  endif
endif

WARN := -Wall -Wextra -Wshadow -Wdouble-promotion
FLAGS = -std=gnu11 $(OPT) $(MARCH) $(OMP) $(WARN) $(CFLAGS)
# clang may not vectorise exp() in double where asked to; the loop is right all the same.
FLAGS += $(call try,-Wno-pass-failed,$(RUNS))
# Without OpenMP its pragmas mean nothing, and saying so is no use to anyone.
ifeq ($(OMP),)
  FLAGS += -Wno-unknown-pragmas -Wno-source-uses-openmp $(call try,-fopenmp-simd,$(RUNS))
endif
GIT_REV := $(shell git describe --always --dirty 2> /dev/null || echo unknown)
FACTS = -DGOLF_CODE_BYTES=$(shell cat train_golf.c golf.h | wc -c) -DGOLF_GIT_REV='"$(GIT_REV)"'
SOURCES := train_golf.c golf.h data/prepare.c dev/bench/bench.h $(wildcard dev/systems/*.h) Makefile

train_golf: $(SOURCES)
	$(CC) $(FLAGS) $(FACTS) -o $@ train_golf.c -lm

test_golf_double: test_golf.c dev/check/test_input.h dev/check/test_systems.h dev/check/test_sharing.h dev/check/test_studies.h $(SOURCES)
	$(CC) $(FLAGS) -DGOLF_DOUBLE -o $@ test_golf.c -lm
test_golf_float: test_golf.c dev/check/test_input.h dev/check/test_systems.h dev/check/test_sharing.h dev/check/test_studies.h $(SOURCES)
	$(CC) $(FLAGS) -o $@ test_golf.c -lm

test: test_golf_double test_golf_float
	@{ ./test_golf_double || echo "double: exit status $$?"; \
	   ./test_golf_float || echo "float: exit status $$?"; } | awk '{ print } \
	  / passed, / { p += $$(NF - 3); f += $$(NF - 1); runs++ } \
	  END { if (runs < 2) f++; printf "%d passed, %d failed\n", p, f; exit f > 0 }'

test-bugs:
	@CC="$(CC)" FLAGS="$(filter-out -O%,$(FLAGS))" dev/check/bugs.sh

check: train_golf data/prepare
	dev/check/cli.sh

baseline: train_golf
	@data/get.sh sotu
	@dev/baseline.sh

study: train_golf
	@SEEDS="$(SEEDS)" ARMS="$(ARMS)" QUICK="$(QUICK)" dev/studies/study.sh $(N)

quantizers sharing: train_golf
	@SEEDS="$(SEEDS)" ARMS="$(ARMS)" QUICK="$(QUICK)" dev/studies/study.sh dev/records/$@

report:
	@dev/studies/report.sh

asan:
	$(MAKE) -B test OPT='-O1 -g' CFLAGS='-fsanitize=address,undefined -fno-sanitize-recover=all'
	@rm -f test_golf_double test_golf_float

info:
	@echo "compiler  $(CC): $(shell $(CC) --version | head -n 1)"
	@echo "machine   $(or $(MARCH),portable code: no -march=native)"
	@echo "OpenMP    $(or $(OMP),not found: one thread. Debian: libomp-dev for clang; macOS: brew install libomp)"
	@echo "data      $(if $(wildcard data/sotu/tokenizer.model),data/sotu,none yet: data/get.sh sotu)"

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

clean:
	rm -f train_golf data/prepare test_golf_double test_golf_float

.PHONY: prepare test test-bugs check baseline study quantizers sharing report asan info help clean
