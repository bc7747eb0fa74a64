/* SPDX-License-Identifier: MIT */
/*
 * fw_cfg.c - items of bytes that firmware selects at port 0x510 and reads at port 0x511.
 *
 * The interface is QEMU's (docs/specs/fw_cfg.rst), which SeaBIOS speaks: a few items have numbers,
 * the others names, which item 0x19 lists with the numbers that they got.  What was not
 * added reads as zeros, as does what lies beyond an item's end.  Items are only read, byte by
 * byte: no DMA.  string input makes that cheap enough, as KVM hands over many bytes per exit.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "devices/fw_cfg.h"
#include "vmm/util/bytes.h"

#define PORT	   0x510
#define SIGNATURE  0x00
#define INTERFACE  0x01 /* bit 0: as described above */
#define DIRECTORY  0x19
#define FILE_FIRST 0x20
#define ITEMS_MAX  24
#define FILES_MAX  16
#define ENTRY_BYTES 64 /* of the directory: size, number, 0, name; big-endian */

struct item {
	unsigned key;
	uint32_t len;
	uint8_t *data;
};

struct fw_cfg {
	struct device dev;
	struct bus_range range;
	struct item item[ITEMS_MAX]; /* fixed while the guest runs, like what follows */
	unsigned n_items, n_files;
	uint8_t directory[4 + FILES_MAX * ENTRY_BYTES];
	pthread_mutex_t lock; /* guards all below */
	unsigned key;
	uint32_t at; /* next byte of that item */
};

static const struct item *find(const struct fw_cfg *f, unsigned key)
{
	for (unsigned i = 0; i < f->n_items; i++)
		if (f->item[i].key == key)
			return &f->item[i];
	return NULL;
}

static uint8_t next_byte_locked(struct fw_cfg *f)
{
	const struct item *i;

	if (f->key == DIRECTORY)
		return f->at < sizeof(f->directory) ? f->directory[f->at++] : 0;
	i = find(f, f->key);
	return i && f->at < i->len ? i->data[f->at++] : 0;
}

static void fw_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	struct fw_cfg *f = container_of(r, struct fw_cfg, range);

	memset(data, 0, len);
	if (off != 1)
		return;
	pthread_mutex_lock(&f->lock);
	*(uint8_t *)data = next_byte_locked(f);
	pthread_mutex_unlock(&f->lock);
}

static void fw_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
	struct fw_cfg *f = container_of(r, struct fw_cfg, range);
	const uint8_t *b = data;

	if (off != 0 || len != 2)
		return;
	pthread_mutex_lock(&f->lock);
	f->key = (unsigned)(b[0] | b[1] << 8);
	f->at = 0;
	pthread_mutex_unlock(&f->lock);
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
	f->key = 0;
	f->at = 0;
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
	static const uint8_t interface[4] = {1};
	struct fw_cfg *f = calloc(1, sizeof(*f));
	int err;

	if (!f)
		return -ENOMEM;
	f->dev = (struct device){&fw_ops, s};
	f->range = (struct bus_range){
		.read = fw_read, .write = fw_write, .base = PORT, .len = 2, .name = "fw_cfg"};
	pthread_mutex_init(&f->lock, NULL);
	err = fw_cfg_add(&f->dev, SIGNATURE, "QEMU", 4);
	if (!err)
		err = fw_cfg_add(&f->dev, INTERFACE, interface, sizeof(interface));
	if (!err)
		err = bus_add(s->bus, BUS_PORT, &f->range);
	if (err) {
		items_free(f);
		return err;
	}
	*out = &f->dev;
	return 0;
}
