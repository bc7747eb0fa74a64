# SPDX-License-Identifier: MIT
# Sluice: one Makefile for everything.
#
#   make            build/sluice             make demo      install what is needed, build, measure
#   make check      everything that tests    make check-X   lint unit san crash cli vm lab fuzz
#   make deps       Debian packages          make install   PREFIX, DESTDIR; and make uninstall
#   make SAN=1 ...  with ASan and UBSan      make V=1 ...   show the commands
#   make COVER=1 CC=clang fuzzers            fuzzers that look for new code, in build-cover
#
# Sources are found by folder: a new .c file needs no line here.

CC      ?= cc
PREFIX  ?= /usr/local
PLUGINDIR = $(PREFIX)/lib/sluice
B       := $(if $(COVER),build-cover,$(if $(SAN),build-san,build))
Q       := $(if $(V),,@)

WARN    := -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
           -Wwrite-strings -Wno-unused-parameter $(if $(WERROR)$(CI),-Werror)
comma   := ,
SANFLAGS := $(if $(SAN)$(COVER),-fsanitize=address$(comma)undefined -fno-sanitize-recover=undefined \
            -fno-omit-frame-pointer)
# Comparisons are not traced: the mutations know the numbers that matter, and it is twice as fast.
SANFLAGS += $(if $(COVER),-fsanitize=fuzzer-no-link -fno-sanitize-coverage=trace-cmp)
CPPFLAGS += -I. -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64
CFLAGS  ?= -O2 -g
ALL_CFLAGS = -std=gnu11 $(CFLAGS) $(WARN) $(SANFLAGS) -pthread -fno-strict-aliasing \
             -fPIC -fvisibility=hidden -ftls-model=initial-exec
LDLIBS  += -luring -ljansson -lz -lzstd -pthread

# Debian packages: what building needs, what building the tests needs, and what else the tests use
# (peers to compare with; a test skips what is missing).
BUILD_PKGS := gcc libc6-dev make pkg-config liburing-dev libjansson-dev zlib1g-dev libzstd-dev \
              nbdkit-plugin-dev acpica-tools
UNIT_PKGS  := check
TEST_PKGS  := qemu-utils qemu-system-x86 gnuplot-nox python3 strace zstd nbdkit libnbd-bin fio \
              busybox-static cpio lz4 e2fsprogs hdparm seabios sqlite3 xorriso

UTIL_SRC  := $(wildcard vmm/util/*.c)
BLK_SRC   := $(wildcard blockdev/*.c blockdev/file/*.c blockdev/qcow2/*.c blockdev/crash/*.c \
             blockdev/live/*.c)
IMG_SRC   := $(wildcard blockdev/img/*.c blockdev/io/*.c blockdev/powercut/*.c blockdev/powercut/*.S)
NBD_SRC   := blockdev/nbd/nbd.c
PLUG_SRC  := blockdev/nbd/plugin.c blockdev/nbd/server.c
DEV_SRC   := $(wildcard devices/*.c)
VMM_SRC   := $(wildcard vmm/*.c vmm/*.S)
obj        = $(addprefix $(B)/,$(addsuffix .o,$(basename $(1))))

UTIL_OBJ  := $(call obj,$(UTIL_SRC))
LIB_OBJ   := $(UTIL_OBJ) $(call obj,$(BLK_SRC))
IMG_OBJ   := $(call obj,$(IMG_SRC))
NBD_OBJ   := $(call obj,$(NBD_SRC))
PLUG_OBJ  := $(call obj,$(PLUG_SRC))
DEV_OBJ   := $(call obj,$(DEV_SRC))
VMM_OBJ   := $(call obj,$(VMM_SRC))
# What a unit test may link besides the block library: devices, vmm services, image commands; not main().
PART_OBJ  := $(DEV_OBJ) $(IMG_OBJ) $(filter-out $(B)/vmm/main.o $(B)/vmm/embed.o,$(VMM_OBJ))

UNIT_SRC  := $(wildcard tests/unit/test_*.c)
UNIT_BIN  := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(UNIT_SRC))
SUP_OBJ   := $(call obj,$(wildcard tests/support/*.c))
FUZZ_BIN  := $(patsubst tests/fuzz/%.c,$(B)/tests/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
HELPERS   := $(B)/kill $(B)/nomem.so $(B)/hostfail.so # of the scripts in tests/cli and tests/vm
CLI_TESTS := $(wildcard tests/cli/*.sh)
VM_TESTS  := $(wildcard tests/vm/*.sh)
BENCH_BIN := $(patsubst tests/bench/%.c,$(B)/tests/bench/%,$(wildcard tests/bench/*.c))

.PHONY: all clean deps deps-build demo install uninstall unit tests fuzzers benches \
        check check-lint check-unit check-san check-crash check-faults check-kill check-cli check-vm check-lab check-fuzz lint
.DELETE_ON_ERROR:
.SECONDARY:

# What sluice nbd gives to nbdkit; without nbdkit's header all else is built.
PLUGIN    := $(B)/nbdkit-sluice-plugin.so
HAVE_NBD  := $(shell pkg-config --exists nbdkit 2>/dev/null && echo yes)
ifneq ($(HAVE_NBD),yes)
PLUGIN    :=
$(info no nbdkit-plugin-dev: sluice nbd will have no plugin)
endif
all: $(B)/sluice $(if $(SAN),,$(PLUGIN))

# The test guest that is built into the program: guest/guest.mk makes $(B)/guest/guest.elf.
include guest/guest.mk
EMBED_GUEST := $(B)/guest/guest.elf
EMBED_TRACE := guest/trace/debian-install.trace.zst
$(B)/vmm/embed.o: $(EMBED_GUEST) $(EMBED_TRACE)
$(B)/vmm/embed.o: CPPFLAGS += -DEMBED_GUEST='"$(EMBED_GUEST)"' -DEMBED_TRACE='"$(EMBED_TRACE)"'

# The page that sluice powercut draws timelines with.
EMBED_PAGE := blockdev/powercut/timeline.html
$(B)/blockdev/powercut/page.o: $(EMBED_PAGE)
$(B)/blockdev/powercut/page.o: CPPFLAGS += -DPOWERCUT_PAGE='"$(EMBED_PAGE)"'

# The ACPI table of devices.
EMBED_DSDT := $(B)/vmm/dsdt.aml
$(EMBED_DSDT): vmm/dsdt.asl
	$(Q)mkdir -p $(@D)
	$(Q)echo "  IASL  $<"
	$(Q)iasl -p $(basename $@) $< >$@.log || { cat $@.log; exit 1; }
$(B)/vmm/embed_dsdt.o: $(EMBED_DSDT)
$(B)/vmm/embed_dsdt.o: CPPFLAGS += -DEMBED_DSDT='"$(EMBED_DSDT)"'

$(B)/libblockdev.a: $(LIB_OBJ)
	$(Q)echo "  AR    $@"
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(B)/parts.a: $(PART_OBJ)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

# Hidden symbols let one set of objects serve programs and the plugin at the same speed.
$(B)/nbdkit-sluice-plugin.so: $(PLUG_OBJ) $(B)/libblockdev.a
	$(Q)echo "  LD    $@"
	$(Q)$(CC) $(ALL_CFLAGS) -shared $(LDFLAGS) -o $@ $^ -Wl,--as-needed $(LDLIBS)

$(B)/sluice: $(VMM_OBJ) $(DEV_OBJ) $(IMG_OBJ) $(NBD_OBJ) $(B)/libblockdev.a
	$(Q)echo "  LD    $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# Flags are kept here: with other ones, everything is compiled anew.
$(B)/%.o: %.c Makefile
	$(Q)mkdir -p $(@D)
	$(Q)echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/%.o: %.S
	$(Q)mkdir -p $(@D)
	$(Q)echo "  AS    $<"
	$(Q)$(CC) $(CPPFLAGS) -MMD -MP -c -o $@ $<

$(B)/tests/unit/%: $(B)/tests/unit/%.o $(SUP_OBJ) $(B)/parts.a $(B)/libblockdev.a
	$(Q)echo "  LD    $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS) $(shell pkg-config --libs check 2>/dev/null)

$(B)/tests/bench/%: $(B)/tests/bench/%.o $(B)/libblockdev.a
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/crash: $(call obj,$(wildcard tests/crash/*.c)) $(B)/libblockdev.a
	$(Q)echo "  LD    $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# Make allocations and host calls of the program under test fail; see tests/cli/nomem.sh, hostfail.sh.
$(B)/nomem.so $(B)/hostfail.so: $(B)/%.so: tests/nomem/%.c tests/nomem/count.c tests/nomem/count.h
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -std=gnu11 -O2 -g $(WARN) -fPIC -shared $(LDFLAGS) -o $@ $(filter %.c,$^)

$(B)/kill: $(B)/tests/kill/kill.o $(B)/libblockdev.a
	$(Q)echo "  LD    $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/tests/fuzz/%: $(B)/tests/fuzz/%.o $(B)/tests/fuzz/mutate.o $(B)/parts.a $(B)/libblockdev.a
	$(Q)echo "  LD    $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(if $(COVER),-fsanitize=fuzzer) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(FUZZ_BIN): $(B)/tests/fuzz/$(if $(COVER),cover,driver).o

unit: $(UNIT_BIN)
	$(Q)for t in $(UNIT_BIN); do $$t || exit 1; done
tests: $(UNIT_BIN)
fuzzers: $(FUZZ_BIN)
benches: $(BENCH_BIN)

deps-build:
	$(Q)tests/deps.sh $(BUILD_PKGS)
deps: deps-build
	$(Q)tests/deps.sh $(UNIT_PKGS) $(TEST_PKGS)

demo: deps-build
	$(Q)$(MAKE) --no-print-directory all
	$(B)/sluice bench install

# Each check builds what it needs first; tests/run.sh runs, counts and closes with one line.
RUN_lint := lint: tests/lint.sh
RUN_unit := unit: $(UNIT_BIN)
RUN_san  := san: $(patsubst $(B)/%,build-san/%,$(UNIT_BIN))
RUN_cli  := cli: $(CLI_TESTS)
RUN_crash := crash: $(B)/crash
RUN_vm   := vm: $(VM_TESTS)
RUN_lab  := lab: tests/lab/lab.sh
RUN_fuzz := fuzz: $(patsubst $(B)/%,build-san/%,$(FUZZ_BIN))

check: deps-build
	$(Q)tests/deps.sh $(UNIT_PKGS)
	$(Q)tests/deps.sh $(TEST_PKGS) || echo "deps: going on; tests skip what is missing"
	$(Q)$(MAKE) --no-print-directory all tests $(B)/crash $(HELPERS)
	$(Q)$(MAKE) --no-print-directory SAN=1 tests fuzzers
	$(Q)TEST_TIMEOUT=1100 tests/run.sh $(RUN_lint) $(RUN_unit) $(RUN_san) $(RUN_crash) \
		$(RUN_cli) $(RUN_vm) $(RUN_lab) $(RUN_fuzz)

lint check-lint:
	$(Q)tests/run.sh $(RUN_lint)
check-unit: tests
	$(Q)tests/run.sh $(RUN_unit)
check-san:
	$(Q)$(MAKE) --no-print-directory SAN=1 tests
	$(Q)tests/run.sh $(RUN_san)
# Many more power cuts than 'make check' tries, and cuts of repairs: some minutes on two cores.
check-crash: $(B)/crash
	$(Q)$(B)/crash --exhaustive --states 200000 --seeds 3 --repairs 200 --faults 61 \
		--qemu $${TMPDIR:-/tmp}
# Every single host operation of every row failing in turn, in each way: an hour.
check-faults: $(B)/crash
	$(Q)$(B)/crash --states 1000 --seeds 1 --faults 1
# A thousand writers killed, and a hundred guests: some minutes.
check-kill: all $(HELPERS)
	$(Q)ROUNDS=1000 TEST_TIMEOUT=3600 tests/run.sh cli: tests/cli/kill.sh
	$(Q)ROUNDS=25 TEST_TIMEOUT=3600 tests/run.sh vm: tests/vm/kill.sh
check-cli: all $(HELPERS)
	$(Q)tests/run.sh $(RUN_cli)
check-vm: all $(HELPERS)
	$(Q)tests/run.sh $(RUN_vm)
# Stock Debian kernels as guests, and an install of Debian, on an emulated AMD-V host where there is
# no real one, and there the suite vm: an hour, half of it the install.  LAB names single tests.
check-lab: all $(HELPERS)
	$(Q)LAB=$${LAB:-all} LAB_TIMEOUT=9000 TEST_TIMEOUT=18100 tests/run.sh $(RUN_lab)
check-fuzz:
	$(Q)$(MAKE) --no-print-directory SAN=1 fuzzers
	$(Q)tests/run.sh $(RUN_fuzz)

install: all
	install -D -m 755 $(B)/sluice $(DESTDIR)$(PREFIX)/bin/sluice
	install -D -m 644 man/sluice.1 $(DESTDIR)$(PREFIX)/share/man/man1/sluice.1
	$(if $(PLUGIN),install -D -m 644 $(PLUGIN) $(DESTDIR)$(PLUGINDIR)/$(notdir $(PLUGIN)))
uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/sluice $(DESTDIR)$(PREFIX)/share/man/man1/sluice.1 \
		$(DESTDIR)$(PLUGINDIR)/nbdkit-sluice-plugin.so

clean:
	rm -rf build build-san build-cover

-include $(shell find $(B) -path $(B)/lab -prune -o -type f -name '*.d' -print 2>/dev/null)
