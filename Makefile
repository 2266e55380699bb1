# Tegu. `make help` lists the targets.
BUILD  ?= release
OUT    ?= build
OBJ    := $(OUT)/obj/$(BUILD)
CC     ?= gcc
PREFIX ?= /usr/local

LAYERS := base formats convert linearize distill
DEPS   := zlib libcjson openblas lapacke libpcre2-8 libutf8proc
DEP_CFLAGS := $(shell pkg-config --cflags $(DEPS) 2>/dev/null)
DEP_LIBS   := $(shell pkg-config --libs $(DEPS) 2>/dev/null) -lm
TEST_LIBS  := $(shell pkg-config --libs cmocka 2>/dev/null)

WARN := -Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes -Wvla -Werror
CFLAGS_release := -O3 -g -DNDEBUG
CFLAGS_debug   := -O1 -g
CFLAGS_asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
ALL_CFLAGS := -std=c11 -D_GNU_SOURCE -I. -fPIC -fopenmp -fno-math-errno -fno-trapping-math \
              $(WARN) $(CFLAGS_$(BUILD)) $(DEP_CFLAGS) -MMD -MP $(CFLAGS)
ALL_LDFLAGS := -fopenmp $(filter -fsanitize%,$(CFLAGS_$(BUILD))) $(LDFLAGS)

srcs = $(sort $(wildcard $(1)/*.c $(1)/*/*.c $(1)/*/*/*.c))
objs = $(patsubst %.c,$(OBJ)/%.o,$(call srcs,$(1)))
LIB_OBJS  := $(foreach l,$(LAYERS),$(call objs,$(l)))
TOOL_OBJS := $(call objs,tools)
TESTS     := $(patsubst tests/%.c,$(OUT)/tests/%,$(wildcard tests/test_*.c))
TEST_SUPPORT := $(patsubst %.c,$(OBJ)/%.o,$(filter-out tests/test_%,$(wildcard tests/*.c)))
FUZZERS   := $(patsubst tests/fuzz/%.c,$(OUT)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

all: $(OUT)/tegu ## the program at build/tegu

$(OUT)/tegu: $(TOOL_OBJS) $(LIB_OBJS)
	$(CC) -o $@ $^ $(ALL_LDFLAGS) $(DEP_LIBS)

# A test program is linked from objects, so that a registry row without its file cannot pass.
$(OUT)/tests/%: $(OBJ)/tests/%.o $(TEST_SUPPORT) $(LIB_OBJS) $(filter-out $(OBJ)/tools/main.o,$(TOOL_OBJS))
	@mkdir -p $(@D)
	$(CC) -o $@ $^ $(ALL_LDFLAGS) $(DEP_LIBS) $(TEST_LIBS)

$(OBJ)/.flags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(ALL_CFLAGS)' | cmp -s - $@ || echo '$(CC) $(ALL_CFLAGS)' > $@
$(OBJ)/%.o: %.c $(OBJ)/.flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(EXTRA_CFLAGS) -c -o $@ $<

# Vector flags belong to these leaf files alone; kernels/select.c chooses among them at run time.
ifeq ($(shell uname -m),x86_64)
$(OBJ)/linearize/kernels/x86/%_avx2.o: EXTRA_CFLAGS := -mavx2 -mfma -mf16c -ffp-contract=fast
$(OBJ)/linearize/kernels/x86/%_avx512.o: EXTRA_CFLAGS := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c -mprefer-vector-width=512 -ffp-contract=fast
endif

tests: $(TESTS)
test: all tests ## every default test, with a closing count
	@tests/run.sh $(OUT)

clean: ## remove what was built
	rm -rf $(OUT)
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'

.PHONY: all test tests clean help FORCE
-include $(shell find $(OBJ) -name '*.d' 2>/dev/null)
