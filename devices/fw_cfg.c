/* SPDX-License-Identifier: MIT */
/*
 * fw_cfg.c - items of bytes that firmware selects at port 0x510, and reads at port 0x511 or by DMA.
 *
 * The interface is QEMU's (docs/specs/fw_cfg.rst), which SeaBIOS speaks: a few items have numbers,
 * the others names, which item 0x19 lists with the numbers that they got.  What was not
 * added reads as zeros, as does what lies beyond an item's end.  Items are only read.
 *
 * DMA: the guest writes the address of a descriptor, big-endian as all here, to the two halves of
 * a register at port 0x514; the second one starts it.  Selecting, skipping or reading is done when
 * that write returns, and the descriptor's control word says how it ended.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "devices/fw_cfg.h"
#include "vmm/util/bytes.h"

#define PORT	   0x510
#define PORT_DMA   0x514
#define SIGNATURE  0x00
#define INTERFACE  0x01 /* bit 0: bytes at a port, bit 1: DMA */
#define DIRECTORY  0x19
#define FILE_FIRST 0x20
#define ITEMS_MAX  24
#define FILES_MAX  16
#define ENTRY_BYTES 64 /* of the directory: size, number, 0, name; big-endian */

/* Control words of descriptors. */
#define DMA_ERROR      1u
#define DMA_READ       2u
#define DMA_SKIP       4u
#define DMA_SELECT     8u /* the item whose number is in the upper half */
#define DMA_WRITE      16u
#define DMA_DESC_BYTES 16 /* control, length, address: 4, 4 and 8 bytes */

struct item {
	unsigned key;
	uint32_t len;
	uint8_t *data;
};

struct fw_cfg {
	struct device dev;
	struct bus_range range, dma;
	struct item item[ITEMS_MAX]; /* fixed while the guest runs, like what follows */
	unsigned n_items, n_files;
	uint8_t directory[4 + FILES_MAX * ENTRY_BYTES];
	pthread_mutex_t lock; /* guards all below */
	unsigned key;
	uint32_t at;	   /* next byte of that item */
	uint32_t dma_high; /* of the descriptor's address */
};

static const struct item *find(const struct fw_cfg *f, unsigned key)
{
	for (unsigned i = 0; i < f->n_items; i++)
		if (f->item[i].key == key)
			return &f->item[i];
	return NULL;
}

/* What is left of the item that is selected, at most n bytes, and goes on behind it. */
static const uint8_t *take_locked(struct fw_cfg *f, uint32_t *n)
{
	const struct item *i = find(f, f->key);
	const uint8_t *data = f->key == DIRECTORY ? f->directory : i ? i->data : NULL;
	uint32_t len = f->key == DIRECTORY ? sizeof(f->directory) : i ? i->len : 0;

	if (*n > len - f->at)
		*n = len - f->at;
	f->at += *n;
	return data ? data + f->at - *n : NULL;
}

static void select_locked(struct fw_cfg *f, unsigned key)
{
	f->key = key;
	f->at = 0;
}

static void fw_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	struct fw_cfg *f = container_of(r, struct fw_cfg, range);
	const uint8_t *next;
	uint32_t n = 1;

	memset(data, 0, len);
	if (off != 1)
		return;
	pthread_mutex_lock(&f->lock);
	next = take_locked(f, &n);
	pthread_mutex_unlock(&f->lock);
	if (n)
		*(uint8_t *)data = *next;
}

static void fw_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
	struct fw_cfg *f = container_of(r, struct fw_cfg, range);
	const uint8_t *b = data;

	if (off != 0 || len != 2)
		return;
	pthread_mutex_lock(&f->lock);
	select_locked(f, (unsigned)(b[0] | b[1] << 8));
	pthread_mutex_unlock(&f->lock);
}

/* One descriptor's work; how it ended.  Only the place in an item needs the lock. */
static uint32_t transfer(struct fw_cfg *f, uint32_t control, uint32_t len, uint64_t addr)
{
	bool read = control & DMA_READ;
	uint8_t *to = read ? gmem_ptr(f->dev.services->mem, addr, len) : NULL;
	bool error = read ? len && !to : control & DMA_WRITE;
	uint32_t n = !error && control & (DMA_READ | DMA_SKIP) ? len : 0;
	const uint8_t *from;

	pthread_mutex_lock(&f->lock);
	if (control & DMA_SELECT)
		select_locked(f, control >> 16);
	from = take_locked(f, &n);
	pthread_mutex_unlock(&f->lock);
	if (to && n)
		memcpy(to, from, n);
	if (to)
		memset(to + n, 0, len - n);
	return error ? DMA_ERROR : 0;
}

/* A descriptor that is not in memory cannot be told so. */
static void dma_run(struct fw_cfg *f, uint64_t gpa)
{
	uint8_t *desc = gmem_ptr(f->dev.services->mem, gpa, DMA_DESC_BYTES);
	uint8_t copy[DMA_DESC_BYTES];
	uint32_t result;

	if (!desc)
		return;
	memcpy(copy, desc, sizeof(copy));
	result = transfer(f, (uint32_t)be_get(copy, 4), (uint32_t)be_get(copy + 4, 4),
		be_get(copy + 8, 8));
	be_put(desc, result, 4);
}

static void dma_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	memcpy(data, "QEMU CFG" + off, len);
}

static void dma_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
	struct fw_cfg *f = container_of(r, struct fw_cfg, dma);
	uint32_t high;

	if (len != 4 || off % 4)
		return;
	pthread_mutex_lock(&f->lock);
	high = f->dma_high;
	f->dma_high = off ? 0 : (uint32_t)be_get(data, 4);
	pthread_mutex_unlock(&f->lock);
	if (off)
		dma_run(f, (uint64_t)high << 32 | be_get(data, 4));
}

int fw_cfg_add(struct device *d, unsigned key, const void *data, uint32_t len)
{
	struct fw_cfg *f = container_of(d, struct fw_cfg, dev);
	uint8_t *copy;

	assert(!find(f, key));
	if (f->n_items == ITEMS_MAX)
		return -ENOSPC;
	copy = malloc(len ? len : 1);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, data, len);
	f->item[f->n_items++] = (struct item){key, len, copy};
	return 0;
}

int fw_cfg_add_file(struct device *d, const char *name, const void *data, uint32_t len)
{
	struct fw_cfg *f = container_of(d, struct fw_cfg, dev);
	uint8_t *e = f->directory + 4 + f->n_files * ENTRY_BYTES;
	int err;

	assert(strlen(name) <= FW_CFG_NAME_MAX);
	if (f->n_files == FILES_MAX)
		return -ENOSPC;
	err = fw_cfg_add(d, FILE_FIRST + f->n_files, data, len);
	if (err)
		return err;
	be_put(e, len, 4);
	be_put(e + 4, FILE_FIRST + f->n_files, 2);
	memcpy(e + 8, name, strlen(name));
	be_put(f->directory, ++f->n_files, 4);
	return 0;
}

static void fw_reset(struct device *d)
{
	struct fw_cfg *f = container_of(d, struct fw_cfg, dev);

	pthread_mutex_lock(&f->lock);
	select_locked(f, 0);
	f->dma_high = 0;
	pthread_mutex_unlock(&f->lock);
}

static void items_free(struct fw_cfg *f)
{
	for (unsigned i = 0; i < f->n_items; i++)
		free(f->item[i].data);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static void fw_destroy(struct device *d)
{
	struct fw_cfg *f = container_of(d, struct fw_cfg, dev);

	bus_remove(d->services->bus, BUS_PORT, &f->dma);
	bus_remove(d->services->bus, BUS_PORT, &f->range);
	items_free(f);
}

static const struct device_ops fw_ops = {
	.name = "fw_cfg",
	.reset = fw_reset,
	.destroy = fw_destroy,
};

int fw_cfg_create(struct machine_services *s, struct device **out)
{
	static const uint8_t interface[4] = {3};
	struct fw_cfg *f = calloc(1, sizeof(*f));
	int err;

	if (!f)
		return -ENOMEM;
	f->dev = (struct device){&fw_ops, s};
	f->range = (struct bus_range){
		.read = fw_read, .write = fw_write, .base = PORT, .len = 2, .name = "fw_cfg"};
	f->dma = (struct bus_range){.read = dma_read,
		.write = dma_write,
		.base = PORT_DMA,
		.len = 8,
		.name = "fw_cfg"};
	pthread_mutex_init(&f->lock, NULL);
	err = fw_cfg_add(&f->dev, SIGNATURE, "QEMU", 4);
	if (!err)
		err = fw_cfg_add(&f->dev, INTERFACE, interface, sizeof(interface));
	if (!err)
		err = bus_add(s->bus, BUS_PORT, &f->range);
	if (!err) {
		err = bus_add(s->bus, BUS_PORT, &f->dma);
		if (err)
			bus_remove(s->bus, BUS_PORT, &f->range);
	}
	if (err) {
		items_free(f);
		return err;
	}
	*out = &f->dev;
	return 0;
}
