# Tegu. `make help` lists the targets.
BUILD  ?= release
OUT    ?= build
OBJ    := $(OUT)/obj/$(BUILD)
CC     ?= gcc
PREFIX ?= /usr/local
JOBS   ?= $(shell nproc 2>/dev/null || echo 2)
WERROR ?=# -Werror in CI and `make lint`; empty for compilers whose warnings nobody here has seen
VERSION := 0.1.0

LAYERS := base formats convert linearize distill
DEPS   := zlib libcjson openblas lapacke libpcre2-8 libutf8proc
DEP_CFLAGS := $(shell pkg-config --cflags $(DEPS) 2>/dev/null)
DEP_LIBS   := $(shell pkg-config --libs $(DEPS) 2>/dev/null) -lm
TEST_LIBS  := $(shell pkg-config --libs cmocka 2>/dev/null)

WARN := -Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes -Wvla
CFLAGS_release := -O3 -g -DNDEBUG
CFLAGS_debug   := -O1 -g
CFLAGS_asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
ALL_CFLAGS := -std=c11 -D_GNU_SOURCE -DTG_VERSION='"$(VERSION)"' -I. -fPIC -fopenmp -fno-math-errno -fno-trapping-math \
              $(WARN) $(WERROR) $(CFLAGS_$(BUILD)) $(DEP_CFLAGS) -MMD -MP $(CFLAGS)
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

# The Python files that go beside a native checkpoint's config.json, as rows of convert/native_code.c's table
NATIVE_PY  := $(sort $(wildcard convert/native/*.py))
NATIVE_INC := $(OUT)/generated/convert/native_code.inc
$(NATIVE_INC): $(NATIVE_PY)
	@mkdir -p $(@D)
	@for f in $(NATIVE_PY); do \
	    echo "{\"$$(basename $$f)\", (const unsigned char[]){"; \
	    od -An -v -tx1 $$f | sed 's/\([0-9a-f][0-9a-f]\)/0x\1,/g'; \
	    echo "}, $$(wc -c < $$f)},"; \
	done > $@.tmp && mv $@.tmp $@
$(OBJ)/convert/native_code.o $(OUT)/fuzz/obj/convert/native_code.o: $(NATIVE_INC)
$(OBJ)/convert/native_code.o $(OUT)/fuzz/obj/convert/native_code.o: EXTRA_CFLAGS := -I$(OUT)/generated

$(OBJ)/.flags: FORCE
	@mkdir -p $(@D)
	@echo "$(CC) $(ALL_CFLAGS)" | cmp -s - $@ || echo "$(CC) $(ALL_CFLAGS)" > $@
$(OBJ)/%.o: %.c $(OBJ)/.flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(EXTRA_CFLAGS) -c -o $@ $<

# Vector flags belong to these leaf files alone; kernels/select.c and formats/dtype.c choose among them at run time.
# The conversions of element types round every operation by itself, whatever the instructions.
$(OBJ)/formats/dtype_c.o: EXTRA_CFLAGS := -ffp-contract=off
ifeq ($(shell uname -m),x86_64)
$(OBJ)/formats/x86/%_avx2.o: EXTRA_CFLAGS := -mavx2 -mf16c -ffp-contract=off
$(OBJ)/linearize/kernels/x86/%_avx2.o: EXTRA_CFLAGS := -mavx2 -mfma -mf16c -ffp-contract=fast
$(OBJ)/linearize/kernels/x86/%_avx512.o: EXTRA_CFLAGS := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c -mprefer-vector-width=512 -ffp-contract=fast
$(OBJ)/linearize/kernels/x86/%_amx.o: EXTRA_CFLAGS := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mamx-tile -mamx-bf16 -mfma
endif

$(OUT)/libtegu.a: $(LIB_OBJS)
	rm -f $@ && ar rcs $@ $^
$(OUT)/libtegu.so: $(LIB_OBJS)
	$(CC) -shared -Wl,-soname,libtegu.so.0 -o $@ $^ $(ALL_LDFLAGS) $(DEP_LIBS)

$(OUT)/bench/%: $(OBJ)/tests/bench/%.o $(call objs,base) $(call objs,formats)
	@mkdir -p $(@D)
	$(CC) -o $@ $^ $(ALL_LDFLAGS) $(DEP_LIBS)

$(OUT)/bench/mixers: $(LIB_OBJS) $(OBJ)/tools/blas_core.o

tests: $(TESTS)
lib: $(OUT)/libtegu.a $(OUT)/libtegu.so ## libtegu, static and shared

# `demo` and `test` are a newcomer's first commands: they set up what is missing, then start make anew, because pkg-config is
# asked when the Makefile is read.
demo: setup ## turn the embedded teacher into a validated hybrid (under five minutes)
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@sh scripts/demo.sh $(OUT)
test: setup ## every default test, with a closing count
	@$(MAKE) --no-print-directory -j$(JOBS) all tests lib
	@bash tests/run.sh $(OUT)
test-long: all ## kill -9 in every phase of ten runs, each then goes on to the same weights; recall learned from nothing (a quarter of an hour)
	@bash tests/long/kill9.sh $(OUT)
	@bash tests/long/mqar.sh $(OUT)
	@bash tests/long/mqar_partitions.sh $(OUT)
setup: ## install missing packages, if it may
	@sh scripts/setup.sh

# One program for each tests/fuzz/fuzz_*.c, by clang's libFuzzer, or with replay.c as its main where clang is missing. They link an
# archive: a target pulls in only what it uses. The objects are apart from the others because they carry coverage counters.
FUZZ_CC   ?= $(if $(shell command -v clang 2>/dev/null),clang,gcc)
FUZZ_TIME ?= 0
FUZZ_OBJ  := $(OUT)/fuzz/obj
FUZZ_LIBS := $(patsubst $(OBJ)/%,$(FUZZ_OBJ)/%,$(LIB_OBJS) $(filter-out $(OBJ)/tools/main.o,$(TOOL_OBJS)))
ifneq ($(findstring clang,$(FUZZ_CC)),)
FUZZ_FLAGS := -fsanitize=fuzzer-no-link -Wno-pass-failed
FUZZ_MAIN  := -fsanitize=fuzzer
else
FUZZ_MAIN  := $(FUZZ_OBJ)/tests/fuzz/replay.o
endif
FUZZ_FLAGS += -std=c11 -D_GNU_SOURCE -DTG_VERSION='"$(VERSION)"' -I. -fopenmp $(CFLAGS_asan) $(DEP_CFLAGS) -MMD -MP
fuzz: $(FUZZERS) ## build the fuzz targets and replay their seeds; FUZZ_TIME=300 runs each so many seconds
	@bash tests/fuzz/run.sh $(OUT) $(FUZZ_TIME)
$(FUZZERS): $(OUT)/fuzz/%: $(FUZZ_OBJ)/tests/fuzz/%.o $(filter %.o,$(FUZZ_MAIN)) $(OUT)/fuzz/libtegu.a
	$(FUZZ_CC) -o $@ $^ $(filter -f%,$(FUZZ_MAIN)) -fopenmp $(filter -fsanitize%,$(CFLAGS_asan)) $(DEP_LIBS)
$(OUT)/fuzz/libtegu.a: $(FUZZ_LIBS)
	rm -f $@ && ar rcs $@ $^
$(FUZZ_OBJ)/%.o: %.c
	@mkdir -p $(@D)
	$(FUZZ_CC) $(FUZZ_FLAGS) $(EXTRA_CFLAGS) -c -o $@ $<
$(FUZZ_OBJ)/formats/dtype_c.o: EXTRA_CFLAGS := -ffp-contract=off
$(FUZZ_OBJ)/formats/x86/%_avx2.o: EXTRA_CFLAGS := -mavx2 -mf16c -ffp-contract=off
$(FUZZ_OBJ)/linearize/kernels/x86/%_avx2.o: EXTRA_CFLAGS := -mavx2 -mfma -mf16c -ffp-contract=fast
$(FUZZ_OBJ)/linearize/kernels/x86/%_avx512.o: EXTRA_CFLAGS := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c -ffp-contract=fast
$(FUZZ_OBJ)/linearize/kernels/x86/%_amx.o: EXTRA_CFLAGS := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mamx-tile -mamx-bf16 -mfma

debug: ## build/debug/tegu with assertions
	@$(MAKE) --no-print-directory BUILD=debug OUT=$(OUT)/debug all
asan: ## every default test under AddressSanitizer and UBSan
	@$(MAKE) --no-print-directory BUILD=asan OUT=$(OUT)/asan -j$(JOBS) all tests
	@bash tests/run.sh $(OUT)/asan
lint: ## static rules: include and link direction, formatting, lengths, no print in libraries
	@bash tests/lint.sh
	@$(MAKE) --no-print-directory -j$(JOBS) WERROR=-Werror lib
	@bash tests/layers.sh $(OBJ) $(DEP_LIBS)
	@echo "lint: clean"

# Headers, and the tables that they include, go to include/tegu with their folders, so that `#include "tegu.h"` finds what it includes.
HEADERS := $(sort $(filter-out %_tmpl.h,$(wildcard $(foreach l,$(LAYERS),$(l)/*.h $(l)/*/*.h $(l)/*.def $(l)/*/*.def))))
install: all lib ## PREFIX (/usr/local): program, libtegu, headers, pkg-config file
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pkgconfig
	install $(OUT)/tegu $(DESTDIR)$(PREFIX)/bin/tegu
	install -m 644 $(OUT)/libtegu.a $(DESTDIR)$(PREFIX)/lib/
	install $(OUT)/libtegu.so $(DESTDIR)$(PREFIX)/lib/libtegu.so.0
	ln -sf libtegu.so.0 $(DESTDIR)$(PREFIX)/lib/libtegu.so
	for h in tegu.h $(HEADERS); do install -D -m 644 $$h $(DESTDIR)$(PREFIX)/include/tegu/$$h || exit 1; done
	sed 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|; s|@DEPS@|$(DEPS)|' tegu.pc.in > $(DESTDIR)$(PREFIX)/lib/pkgconfig/tegu.pc

clean: ## remove what was built
	rm -rf $(OUT)
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | column -t -s '|'

.PHONY: all tests lib demo test test-long setup fuzz debug asan lint install clean help FORCE
-include $(shell find $(OBJ) $(OUT)/fuzz -name '*.d' 2>/dev/null)
