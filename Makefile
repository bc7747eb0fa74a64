# Sluice: one Makefile, no recursion.
#
#   make            build/sluice            make demo        install what is needed, build, run the bench
#   make check      everything that tests   make deps        Debian packages for building
#   make SAN=1 ...  with ASan and UBSan     make V=1 ...     show the commands
#
# Sources are found by folder: a new .c file needs no line here.

CC      ?= cc
PREFIX  ?= /usr/local
B       := $(if $(SAN),build-san,build)
Q       := $(if $(V),,@)

WARN    := -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
           -Wwrite-strings -Wno-unused-parameter $(if $(WERROR)$(CI),-Werror)
SANFLAGS := $(if $(SAN),-fsanitize=address$(comma)undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
comma   := ,
CPPFLAGS += -I. -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64
CFLAGS  ?= -O2 -g
ALL_CFLAGS = -std=gnu11 $(CFLAGS) $(WARN) $(subst $(comma),$(comma),$(SANFLAGS)) -pthread -fno-strict-aliasing
LDLIBS  += -luring -ljansson -lz -lzstd -pthread

UTIL_SRC  := $(wildcard vmm/util/*.c)
BLK_SRC   := $(wildcard blockdev/*.c blockdev/file/*.c blockdev/qcow2/*.c)
IMG_SRC   := $(wildcard blockdev/img/*.c)
DEV_SRC   := $(wildcard devices/*.c)
VMM_SRC   := $(wildcard vmm/*.c)
obj        = $(patsubst %.c,$(B)/%.o,$(1))

UTIL_OBJ  := $(call obj,$(UTIL_SRC))
LIB_OBJ   := $(UTIL_OBJ) $(call obj,$(BLK_SRC))
IMG_OBJ   := $(call obj,$(IMG_SRC))
DEV_OBJ   := $(call obj,$(DEV_SRC))
VMM_OBJ   := $(call obj,$(VMM_SRC))
# What a unit test may link besides the block library: devices, vmm services, image commands; not main().
PART_OBJ  := $(DEV_OBJ) $(IMG_OBJ) $(filter-out $(B)/vmm/main.o $(B)/vmm/embed.o,$(VMM_OBJ))

UNIT_SRC  := $(wildcard tests/unit/test_*.c)
UNIT_BIN  := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(UNIT_SRC))
SUP_OBJ   := $(call obj,$(wildcard tests/support/*.c))
BENCH_BIN := $(patsubst tests/bench/%.c,$(B)/tests/bench/%,$(wildcard tests/bench/*.c))

.PHONY: all clean unit lint deps
.DELETE_ON_ERROR:
.SECONDARY:
all: $(B)/sluice

$(B)/libblockdev.a: $(LIB_OBJ)
	$(Q)echo "  AR    $@"
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(B)/parts.a: $(PART_OBJ)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(B)/sluice: $(VMM_OBJ) $(DEV_OBJ) $(IMG_OBJ) $(B)/libblockdev.a
	$(Q)echo "  LD    $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/%.o: %.c
	$(Q)mkdir -p $(@D)
	$(Q)echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/tests/unit/%: $(B)/tests/unit/%.o $(SUP_OBJ) $(B)/parts.a $(B)/libblockdev.a
	$(Q)echo "  LD    $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS) $(shell pkg-config --libs check 2>/dev/null)

$(B)/tests/bench/%: $(B)/tests/bench/%.o $(B)/libblockdev.a
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

unit: $(UNIT_BIN)
	$(Q)for t in $(UNIT_BIN); do $$t || exit 1; done

clean:
	rm -rf build build-san

-include $(shell find $(B) -name '*.d' 2>/dev/null)
