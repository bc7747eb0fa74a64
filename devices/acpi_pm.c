/* SPDX-License-Identifier: MIT */
/*
 * acpi_pm.c - ACPI's fixed registers: power button, switching off, the PM timer.
 *
 *   +0 PM1 status   bit 0 timer carry, bit 8 power button; written bits are cleared
 *   +2 PM1 enable   which of these raise the interrupt (SCI, level)
 *   +4 PM1 control  SCI_EN is always set: there is no mode but ACPI's; SLP_EN switches
 *                   off whatever the sleep type says: this machine sleeps in no other way
 *   +8 PM timer     32 bits at 3.579545 MHz, from the host's monotonic clock
 *
 * The carry bit is set when the timer's top bit changes and somebody looks; nobody is
 * interrupted for it (guests that use the timer read it more often than every ten minutes).
 *
 * Source: ACPI 6.4, section 4.8.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "devices/platform.h"
#include "vmm/util/bytes.h"

#define PM_BYTES    12
#define STATUS_TMR  0x0001
#define STATUS_BTN  0x0100
#define CONTROL	    4
#define CONTROL_SCI 0x0001
#define SLP_EN	    0x20 /* of the second byte */
#define TIMER	    8
#define TIMER_HZ    3579545ULL

struct acpi_pm {
	struct device dev;
	struct bus_range range;
	struct irq_line *sci;
	pthread_mutex_t lock; /* guards all below, and the line */
	uint16_t status, enable;
	uint8_t sleep_type; /* bits 10-12 of control, kept for who reads them back */
	bool carry_seen;    /* the timer's top bit when it was last looked at */
};

static uint32_t timer_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint32_t)((uint64_t)t.tv_sec * TIMER_HZ +
			  (uint64_t)t.tv_nsec * TIMER_HZ / 1000000000);
}

static void sci_update_locked(struct acpi_pm *p)
{
	irq_line_set(p->sci, p->status & p->enable & STATUS_BTN);
}

static void pm_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	struct acpi_pm *p = container_of(r, struct acpi_pm, range);
	uint32_t t = timer_now();
	uint8_t reg[PM_BYTES + 8] = {0};

	pthread_mutex_lock(&p->lock);
	if (p->carry_seen != (t >> 31)) {
		p->status |= STATUS_TMR;
		p->carry_seen = t >> 31;
	}
	le_put(reg, p->status, 2);
	le_put(reg + 2, p->enable, 2);
	reg[CONTROL] = CONTROL_SCI;
	reg[CONTROL + 1] = p->sleep_type;
	pthread_mutex_unlock(&p->lock);
	le_put(reg + TIMER, t, 4);
	memcpy(data, reg + off, len);
}

static void byte_write_locked(struct acpi_pm *p, uint64_t off, uint8_t v)
{
	switch (off) {
	case 0:
	case 1:
		p->status &= (uint16_t)~(v << 8 * off);
		break;
	case 2:
		p->enable = (uint16_t)((p->enable & 0xff00) | v);
		break;
	case 3:
		p->enable = (uint16_t)((p->enable & 0x00ff) | v << 8);
		break;
	case CONTROL + 1:
		p->sleep_type = v & 0x1c;
		break;
	}
}

static void pm_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
	struct acpi_pm *p = container_of(r, struct acpi_pm, range);
	const uint8_t *b = data;

	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < len; i++)
		byte_write_locked(p, off + i, b[i]);
	sci_update_locked(p);
	pthread_mutex_unlock(&p->lock);
	if (off <= CONTROL + 1 && off + len > CONTROL + 1 && b[CONTROL + 1 - off] & SLP_EN)
		p->dev.services->event(p->dev.services, EV_POWEROFF, 0);
}

void acpi_pm_button(struct device *dev)
{
	struct acpi_pm *p = container_of(dev, struct acpi_pm, dev);

	pthread_mutex_lock(&p->lock);
	p->status |= STATUS_BTN;
	sci_update_locked(p);
	pthread_mutex_unlock(&p->lock);
}

static void pm_reset(struct device *dev)
{
	struct acpi_pm *p = container_of(dev, struct acpi_pm, dev);

	pthread_mutex_lock(&p->lock);
	p->status = p->enable = 0;
	p->sleep_type = 0;
	sci_update_locked(p);
	pthread_mutex_unlock(&p->lock);
}

static void pm_destroy(struct device *dev)
{
	struct acpi_pm *p = container_of(dev, struct acpi_pm, dev);

	bus_remove(dev->services->bus, BUS_PORT, &p->range);
	irq_line_free(p->sci);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static const struct device_ops pm_ops = {
	.name = "acpi-pm",
	.reset = pm_reset,
	.destroy = pm_destroy,
};

int acpi_pm_create(struct machine_services *s, struct device **out)
{
	struct acpi_pm *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	p->dev = (struct device){&pm_ops, s};
	p->range = (struct bus_range){.read = pm_read, .write = pm_write, .base = ACPI_PM_PORT,
		.len = PM_BYTES, .name = "ACPI PM"};
	p->carry_seen = timer_now() >> 31;
	err = irq_line_new(s->irqs, ACPI_PM_GSI, &p->sci);
	if (err)
		goto free_pm;
	err = bus_add(s->bus, BUS_PORT, &p->range);
	if (err)
		goto free_line;
	pthread_mutex_init(&p->lock, NULL);
	*out = &p->dev;
	return 0;
free_line:
	irq_line_free(p->sci);
free_pm:
	free(p);
	return err;
}
