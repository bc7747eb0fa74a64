# SPDX-License-Identifier: MIT
# The test guest: one freestanding ELF for Sluice and for QEMU.  It has its own flags, and never a
# sanitizer's: it runs without an operating system.

GUEST_CC      ?= $(CC)
GUEST_CFLAGS  := -std=gnu11 -O2 -g -ffreestanding -fno-pic -fno-pie -mno-red-zone \
                 -march=x86-64 -fcf-protection=none -fno-stack-protector \
                 -fno-asynchronous-unwind-tables -fno-strict-aliasing -Wall -Wextra \
                 -Wshadow -Wvla -Wstrict-prototypes \
                 -Wmissing-prototypes -Wpointer-arith -Wwrite-strings -Wno-unused-parameter \
                 $(if $(WERROR)$(CI),-Werror)
GUEST_LDFLAGS := -nostdlib -static -no-pie -Wl,--build-id=none,-z,noexecstack,-z,max-page-size=4096
GUEST_OBJ     := $(patsubst guest/%,$(B)/guest/%.o,$(basename $(wildcard guest/*.c guest/*.S)))

.PHONY: guest
guest: $(B)/guest/guest.elf

$(B)/guest/guest.elf: $(GUEST_OBJ) guest/guest.ld
	$(Q)echo "  LD    $@"
	$(Q)$(GUEST_CC) $(GUEST_LDFLAGS) -Wl,-T,guest/guest.ld -o $@ $(GUEST_OBJ)

$(B)/guest/%.o: guest/%.c
	$(Q)mkdir -p $(@D)
	$(Q)echo "  GCC   $<"
	$(Q)$(GUEST_CC) -I. $(GUEST_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/guest/%.o: guest/%.S
	$(Q)mkdir -p $(@D)
	$(Q)echo "  GAS   $<"
	$(Q)$(GUEST_CC) -I. -MMD -MP -c -o $@ $<
