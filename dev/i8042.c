/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The 8042 keyboard controller with a PS/2 keyboard and a PS/2 wheel mouse. (IBM PS/2 Hardware Interface Technical
 * Reference, "Keyboard and Auxiliary Device Controller"; Microsoft Keyboard Scan Code Specification 1.3a)
 *
 * Bytes reach the guest one at a time through the output buffer. When it is empty, fill() takes the next byte from, in
 * this order: the controller's own answers, the keyboard, the mouse. Reading port 0x60 empties it and fills it again;
 * the interrupt line goes low in between.
 *
 * The keyboard has two sources. Answers to commands (`kbd_out`) go first. Keys typed by a person wait on the host's
 * side
 * (`typed`, scan code set 1 bytes) as long as the guest needs: a key is taken out only when the last one has been read,
 * converted to the set the keyboard is switched to, and its bytes follow each other in `key`. They are paced in virtual
 * time: a handler that reads port 0x60 twice gets the same byte twice, and a BIOS with 15 places for keys can follow.
 *
 * The mouse adds up motion until there is room for a packet.
 */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "dev/dev.h"

#define TYPED_SIZE 65536u
#define BYTE_GAP_NS 400000u /* between the bytes of one key */
#define KEY_GAP_NS 4000000u /* between keys */

enum {
	STS_OBF = 1,
	STS_SYS = 4,
	STS_COMMAND = 8,
	STS_UNLOCKED = 0x10,
	STS_AUX = 0x20,

	CMD_KBD_IRQ = 1,
	CMD_AUX_IRQ = 2,
	CMD_SYS = 4,
	CMD_KBD_OFF = 0x10,
	CMD_AUX_OFF = 0x20,
	CMD_TRANSLATE = 0x40,

	OUT_RESET = 1,
	OUT_A20 = 2,

	ACK = 0xfa,
	RESEND = 0xfe,
	BAT_OK = 0xaa,
};

/* A small queue of bytes on their way to the guest. */
struct fifo {
	uint8_t len, b[15];
};

struct i8042 {
	struct device dev;
	struct irq irq1, irq12;
	struct vtimer pace;

	/* controller */
	uint8_t command;	 /* the command byte, RAM address 0 */
	uint8_t ram[32];	 /* the others; [0] is not used */
	uint8_t status;		 /* OBF, AUX, SYS, COMMAND */
	uint8_t data;		 /* output buffer */
	uint8_t pending_command; /* a command that waits for its parameter at port 0x60; 0: none */
	uint8_t output_port;
	struct fifo own, own_aux; /* answers of the controller, shown as from the keyboard or the mouse */

	/* keyboard */
	struct fifo kbd_out, key;
	uint8_t kbd_set, kbd_enabled, kbd_leds, kbd_command, kbd_last;
	uint8_t break_seen; /* the translator saw f0 */
	uint64_t key_at;    /* virtual ns before which no further byte of a typed key comes */

	/* mouse */
	struct fifo mouse_out;
	uint8_t mouse_enabled, mouse_remote, mouse_wrap, mouse_id, mouse_command, mouse_scaling;
	uint8_t mouse_resolution, mouse_rate, mouse_knock; /* knock: how far the sequence of rates got */
	uint8_t mouse_buttons;				   /* as last reported to the guest */
	struct fifo mouse_clicks; /* states since then: a click must not vanish because the guest is slow */
	int32_t dx, dy, dz;

	/* the host's side: not part of the machine's state */
	uint32_t typed_start, typed_len;
	uint8_t typed[TYPED_SIZE];
};

/* Scan code set 1 to set 2, both without prefixes and break bits. */
static const uint8_t set1_to_2[128] = {
	0x00, 0x76, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e, 0x55, 0x66, 0x0d, /* 00 */
	0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, 0x5a, 0x14, 0x1c, 0x1b, /* 10 */
	0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52, 0x0e, 0x12, 0x5d, 0x1a, 0x22, 0x21, 0x2a, /* 20 */
	0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x59, 0x7c, 0x11, 0x29, 0x58, 0x05, 0x06, 0x04, 0x0c, 0x03, /* 30 */
	0x0b, 0x83, 0x0a, 0x01, 0x09, 0x77, 0x7e, 0x6c, 0x75, 0x7d, 0x7b, 0x6b, 0x73, 0x74, 0x79, 0x69, /* 40 */
	0x72, 0x7a, 0x70, 0x71, 0x7f, 0x60, 0x61, 0x78, 0x07, 0x0f, 0x17, 0x1f, 0x27, 0x2f, 0x37, 0x3f, /* 50 */
	0x47, 0x4f, 0x56, 0x5e, 0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x40, 0x48, 0x50, 0x57, 0x6f, /* 60 */
	0x13, 0x19, 0x39, 0x51, 0x53, 0x5c, 0x5f, 0x62, 0x63, 0x64, 0x65, 0x67, 0x68, 0x6a, 0x6d, 0x6e, /* 70 */
};

static void fill(struct i8042 *k);

/* ---- queues ---- */

static void
put(struct fifo *f, uint8_t byte)
{
	if (f->len < sizeof(f->b))
		f->b[f->len++] = byte;
}

static uint8_t
get(struct fifo *f)
{
	uint8_t byte = f->b[0];

	memmove(f->b, f->b + 1, --f->len);
	return byte;
}

/* ---- output buffer ---- */

static void
drive(struct i8042 *k)
{
	bool full = k->status & STS_OBF, aux = k->status & STS_AUX;

	irq_set(&k->irq1, full && !aux && k->command & CMD_KBD_IRQ);
	irq_set(&k->irq12, full && aux && k->command & CMD_AUX_IRQ);
}

static void
show(struct i8042 *k, uint8_t byte, bool aux)
{
	k->data = byte;
	k->status = (uint8_t)((k->status & ~STS_AUX) | STS_OBF | (aux ? STS_AUX : 0));
	drive(k);
}

/* Set 2 to set 1, the way the controller does it: f0 goes away and sets bit 7 of what follows. */
static bool
translate(struct i8042 *k, uint8_t byte, uint8_t *out)
{
	uint8_t up = k->break_seen ? 0x80 : 0;

	if (byte == 0xf0) {
		k->break_seen = 1;
		return false;
	}
	*out = byte;
	if (byte == 0xe0 || byte == 0xe1) /* prefixes pass; what was seen stays seen */
		return true;
	k->break_seen = 0;
	if (byte == 0x84) {
		*out = 0x54 | up;
		return true;
	}
	for (int i = 1; i < 128; i++)
		if (set1_to_2[i] == byte) {
			*out = (uint8_t)i | up;
			break;
		}
	return true;
}

/* A byte from the keyboard; false: the translator swallowed it. */
static bool
show_from_keyboard(struct i8042 *k, uint8_t byte)
{
	uint8_t out = byte;

	k->kbd_last = byte;
	if (k->command & CMD_TRANSLATE && !translate(k, byte, &out))
		return false;
	show(k, out, false);
	return true;
}

/* ---- typed keys ---- */

static uint8_t
typed_at(const struct i8042 *k, uint32_t i)
{
	return k->typed[(k->typed_start + i) % TYPED_SIZE];
}

/* Bytes of the first key in `typed`: e1 takes two more, e0 one. 0: not complete yet. */
static uint32_t
typed_key_len(const struct i8042 *k)
{
	uint32_t want;

	if (!k->typed_len)
		return 0;
	want = typed_at(k, 0) == 0xe1 ? 3 : typed_at(k, 0) == 0xe0 ? 2 : 1;
	return k->typed_len >= want ? want : 0;
}

static void
put_code(struct i8042 *k, uint8_t set1)
{
	if (k->kbd_set == 1 || set1 == 0xe0 || set1 == 0xe1) {
		put(&k->key, set1);
		return;
	}
	if (set1 & 0x80)
		put(&k->key, 0xf0);
	put(&k->key, set1_to_2[set1 & 0x7f]);
}

/* Move the first typed key to `key`, in the keyboard's scan code set. */
static bool
next_key(struct i8042 *k)
{
	uint32_t n = typed_key_len(k);

	for (uint32_t i = 0; i < n; i++)
		put_code(k, typed_at(k, i));
	k->typed_start = (k->typed_start + n) % TYPED_SIZE;
	k->typed_len -= n;
	return n > 0;
}

/* Show the next byte of a typed key, or have fill() called when it is time. */
static void
fill_typed(struct i8042 *k)
{
	uint64_t now = clock_now(&k->dev.m->clock);

	if (!k->kbd_enabled || (!k->key.len && !typed_key_len(k)))
		return;
	if (now < k->key_at) {
		vtimer_arm(&k->pace, k->key_at);
		return;
	}
	if (!k->key.len)
		next_key(k);
	while (k->key.len && !show_from_keyboard(k, get(&k->key)))
		;
}

/* ---- mouse packets ---- */

static int32_t
take(int32_t *sum, int32_t limit)
{
	int32_t v = *sum > limit ? limit : *sum < -limit ? -limit : *sum;

	*sum -= v;
	return v;
}

static void
put_packet(struct i8042 *k)
{
	int32_t x = take(&k->dx, 255), y = take(&k->dy, 255), z;
	uint8_t b;

	if (k->mouse_clicks.len)
		k->mouse_buttons = get(&k->mouse_clicks);
	b = k->mouse_buttons;
	put(&k->mouse_out, (uint8_t)((b & 7) | 8 | (x < 0 ? 0x10 : 0) | (y < 0 ? 0x20 : 0)));
	put(&k->mouse_out, (uint8_t)x);
	put(&k->mouse_out, (uint8_t)y);
	if (k->mouse_id == 0) {
		k->dz = 0;
		return;
	}
	z = take(&k->dz, k->mouse_id == 4 ? 7 : 127);
	put(&k->mouse_out, (uint8_t)(k->mouse_id == 4 ? (z & 15) | (b & 0x18) << 1 : z));
}

static bool
mouse_has_news(const struct i8042 *k)
{
	return k->dx || k->dy || (k->dz && k->mouse_id) || k->mouse_clicks.len;
}

/* ---- what comes next ---- */

static void
fill(struct i8042 *k)
{
	if (k->status & STS_OBF)
		return;
	if (k->own.len) {
		show(k, get(&k->own), false);
		return;
	}
	if (k->own_aux.len) {
		show(k, get(&k->own_aux), true);
		return;
	}
	if (!(k->command & CMD_KBD_OFF)) {
		while (k->kbd_out.len)
			if (show_from_keyboard(k, get(&k->kbd_out)))
				return;
		fill_typed(k);
	}
	if (k->status & STS_OBF || k->command & CMD_AUX_OFF)
		return;
	if (!k->mouse_out.len && k->mouse_enabled && !k->mouse_remote && !k->mouse_wrap && mouse_has_news(k))
		put_packet(k);
	if (k->mouse_out.len)
		show(k, get(&k->mouse_out), true);
}

static void
pace_expired(void *opaque)
{
	fill(opaque);
}

/* ---- keyboard commands ---- */

static void
keyboard_defaults(struct i8042 *k)
{
	k->kbd_set = 2;
	k->kbd_command = 0;
	k->key.len = 0;
}

static void
keyboard_reset(struct i8042 *k)
{
	keyboard_defaults(k);
	k->kbd_enabled = 1;
	k->kbd_leds = 0;
	k->kbd_out.len = 0;
}

static void
keyboard_parameter(struct i8042 *k, uint8_t v)
{
	uint8_t command = k->kbd_command;

	k->kbd_command = 0;
	switch (command) {
	case 0xed:
		k->kbd_leds = v & 7;
		break;
	case 0xf0:
		if (v > 2) { /* set 3 is not offered */
			put(&k->kbd_out, RESEND);
			return;
		}
		put(&k->kbd_out, ACK);
		if (v)
			k->kbd_set = v;
		else
			put(&k->kbd_out, k->kbd_set);
		return;
	}
	/* f3, typematic rate: the person's own keyboard repeats; fb-fd, key types: only set 3 has them */
	put(&k->kbd_out, ACK);
}

static void
keyboard_write(struct i8042 *k, uint8_t v)
{
	if (k->kbd_command && v < 0x80) {
		keyboard_parameter(k, v);
		return;
	}
	k->kbd_command = 0;
	switch (v) {
	case 0xee: /* echo */
		put(&k->kbd_out, 0xee);
		return;
	case 0xfe: /* resend */
		put(&k->kbd_out, k->kbd_last);
		return;
	case 0xed:
	case 0xf0:
	case 0xf3:
	case 0xfb:
	case 0xfc:
	case 0xfd:
		k->kbd_command = v;
		put(&k->kbd_out, ACK);
		return;
	case 0xf2: /* identify */
		put(&k->kbd_out, ACK);
		put(&k->kbd_out, 0xab);
		put(&k->kbd_out, 0x83);
		return;
	case 0xf4:
	case 0xf5:
	case 0xf6:
		if (v != 0xf4)
			keyboard_defaults(k);
		k->kbd_enabled = v != 0xf5;
		put(&k->kbd_out, ACK);
		return;
	case 0xf7:
	case 0xf8:
	case 0xf9:
	case 0xfa:
		put(&k->kbd_out, ACK);
		return;
	case 0xff:
		keyboard_reset(k);
		put(&k->kbd_out, ACK);
		put(&k->kbd_out, BAT_OK);
		return;
	}
	put(&k->kbd_out, RESEND);
}

/* ---- mouse commands ---- */

static void
mouse_defaults(struct i8042 *k)
{
	k->mouse_enabled = k->mouse_remote = k->mouse_scaling = k->mouse_command = k->mouse_knock = 0;
	k->mouse_resolution = 2;
	k->mouse_rate = 100;
	k->dx = k->dy = k->dz = 0;
}

static void
mouse_reset(struct i8042 *k)
{
	mouse_defaults(k);
	k->mouse_id = k->mouse_wrap = 0;
	k->mouse_out.len = 0;
}

/* Setting the rate to 200, 100, 80 makes it a wheel mouse (3), 200, 200, 80 one with five buttons (4). */
static void
mouse_rate(struct i8042 *k, uint8_t rate)
{
	k->mouse_rate = rate;
	if (rate == 200)
		k->mouse_knock = k->mouse_knock == 1 ? 3 : 1;
	else if (rate == 100 && k->mouse_knock == 1)
		k->mouse_knock = 2;
	else if (rate == 80 && k->mouse_knock >= 2) {
		k->mouse_id = k->mouse_knock == 2 ? 3 : 4;
		k->mouse_knock = 0;
	} else
		k->mouse_knock = 0;
}

static void
mouse_status(struct i8042 *k)
{
	uint8_t b = k->mouse_buttons;

	put(&k->mouse_out,
		(uint8_t)((b & 2 ? 1 : 0) | (b & 4 ? 2 : 0) | (b & 1 ? 4 : 0) | (k->mouse_scaling ? 0x10 : 0) |
			  (k->mouse_enabled ? 0x20 : 0) | (k->mouse_remote ? 0x40 : 0)));
	put(&k->mouse_out, k->mouse_resolution);
	put(&k->mouse_out, k->mouse_rate);
}

static void
mouse_parameter(struct i8042 *k, uint8_t v)
{
	if (k->mouse_command == 0xf3)
		mouse_rate(k, v);
	else
		k->mouse_resolution = v & 3;
	k->mouse_command = 0;
	put(&k->mouse_out, ACK);
}

static void
mouse_command(struct i8042 *k, uint8_t v)
{
	put(&k->mouse_out, ACK);
	switch (v) {
	case 0xe6:
	case 0xe7:
		k->mouse_scaling = v & 1;
		break;
	case 0xe8:
	case 0xf3:
		k->mouse_command = v;
		break;
	case 0xe9:
		mouse_status(k);
		break;
	case 0xea:
	case 0xf0:
		k->mouse_remote = v == 0xf0;
		break;
	case 0xeb:
		put_packet(k);
		break;
	case 0xec:
	case 0xee:
		k->mouse_wrap = v == 0xee;
		break;
	case 0xf2:
		put(&k->mouse_out, k->mouse_id);
		break;
	case 0xf4:
	case 0xf5:
		k->mouse_enabled = v == 0xf4;
		break;
	case 0xf6:
		mouse_defaults(k);
		break;
	case 0xff:
		mouse_reset(k);
		put(&k->mouse_out, ACK);
		put(&k->mouse_out, BAT_OK);
		put(&k->mouse_out, 0);
		break;
	default:
		k->mouse_out.b[k->mouse_out.len - 1] = RESEND;
	}
}

static void
mouse_write(struct i8042 *k, uint8_t v)
{
	if (k->mouse_wrap && v != 0xec && v != 0xff) { /* wrap mode echoes */
		put(&k->mouse_out, v);
		return;
	}
	if (k->mouse_command) {
		mouse_parameter(k, v);
		return;
	}
	/* A command ends what was being sent, down to a packet cut in half. */
	k->mouse_out.len = 0;
	mouse_command(k, v);
}

/* ---- controller ---- */

static void
write_output_port(struct i8042 *k, uint8_t v)
{
	k->output_port = v;
	if (!(v & OUT_RESET))
		machine_event(k->dev.m, MACHINE_RESET, 0);
}

static uint8_t
read_output_port(const struct i8042 *k)
{
	bool full = k->status & STS_OBF, aux = k->status & STS_AUX;

	return (uint8_t)((k->output_port & 0xcf) | (full && !aux ? 0x10 : 0) | (full && aux ? 0x20 : 0));
}

static void
write_command_byte(struct i8042 *k, uint8_t v)
{
	k->command = v & 0x7f;
	k->status = (uint8_t)((k->status & ~STS_SYS) | (v & CMD_SYS));
	drive(k);
}

static void
controller_command(struct i8042 *k, uint8_t v)
{
	k->pending_command = 0;
	if (v >= 0x20 && v <= 0x3f) {
		put(&k->own, v == 0x20 ? k->command : k->ram[v & 31]);
		return;
	}
	if (v >= 0xf0) { /* pulse the output lines whose bits are 0; line 0 is the processor's reset */
		if (!(v & 1))
			machine_event(k->dev.m, MACHINE_RESET, 0);
		return;
	}
	switch (v) {
	case 0xa7:
		k->command |= CMD_AUX_OFF;
		break;
	case 0xa8:
		k->command &= (uint8_t)~CMD_AUX_OFF;
		break;
	case 0xa9: /* test of the mouse's and the keyboard's lines: in order */
	case 0xab:
		put(&k->own, 0);
		break;
	case 0xaa: /* self-test */
		k->status |= STS_SYS;
		k->command |= CMD_SYS;
		put(&k->own, 0x55);
		break;
	case 0xad:
		k->command |= CMD_KBD_OFF;
		break;
	case 0xae:
		k->command &= (uint8_t)~CMD_KBD_OFF;
		break;
	case 0xc0: /* input port: not locked, colour display */
		put(&k->own, 0x80);
		break;
	case 0xd0:
		put(&k->own, read_output_port(k));
		break;
	case 0xdd:
		k->output_port &= (uint8_t)~OUT_A20;
		break;
	case 0xdf:
		k->output_port |= OUT_A20;
		break;
	case 0xd1:
	case 0xd2:
	case 0xd3:
	case 0xd4:
		k->pending_command = v;
		break;
	default:
		if (v >= 0x60 && v <= 0x7f)
			k->pending_command = v;
	}
}

static void
write_data(struct i8042 *k, uint8_t v)
{
	uint8_t command = k->pending_command;

	k->pending_command = 0;
	switch (command) {
	case 0:
		k->command &= (uint8_t)~CMD_KBD_OFF; /* a byte for the keyboard switches it on */
		keyboard_write(k, v);
		break;
	case 0x60:
		write_command_byte(k, v);
		break;
	case 0xd1:
		write_output_port(k, v);
		break;
	case 0xd2:
		put(&k->own, v);
		break;
	case 0xd3:
		put(&k->own_aux, v);
		break;
	case 0xd4:
		k->command &= (uint8_t)~CMD_AUX_OFF;
		mouse_write(k, v);
		break;
	default:
		k->ram[command & 31] = v;
	}
}

/* The guest has taken the byte in the output buffer; the next one comes at once or, of a typed key, a little later. */
static void
taken(struct i8042 *k)
{
	if ((k->status & (STS_OBF | STS_AUX)) == STS_OBF)
		k->key_at = clock_now(&k->dev.m->clock) + (k->key.len ? BYTE_GAP_NS : KEY_GAP_NS);
	k->status &= (uint8_t)~STS_OBF;
	drive(k);
	fill(k);
}

/* Ports 0x60 and 0x64 are two ranges: 0x61 between them is the timer's. */
static uint64_t
data_read(void *opaque, uint64_t off, unsigned size)
{
	struct i8042 *k = opaque;
	uint8_t byte = k->data;

	taken(k);
	return byte;
}

static void
data_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
	struct i8042 *k = opaque;

	k->status &= (uint8_t)~STS_COMMAND;
	write_data(k, (uint8_t)v);
	fill(k);
}

static uint64_t
status_read(void *opaque, uint64_t off, unsigned size)
{
	return ((struct i8042 *)opaque)->status | STS_UNLOCKED;
}

static void
status_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
	struct i8042 *k = opaque;

	k->status |= STS_COMMAND;
	controller_command(k, (uint8_t)v);
	fill(k);
}

/* Port 0x92, "fast A20 and reset" of the PS/2. */
static uint64_t
fast_read(void *opaque, uint64_t off, unsigned size)
{
	return ((struct i8042 *)opaque)->output_port & OUT_A20;
}

static void
fast_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
	struct i8042 *k = opaque;

	k->output_port = (uint8_t)((k->output_port & ~OUT_A20) | (v & OUT_A20));
	if (v & 1)
		machine_event(k->dev.m, MACHINE_RESET, 0);
}

static const struct bus_ops data_ops = { data_read, data_write, 1, 1 };
static const struct bus_ops status_ops = { status_read, status_write, 1, 1 };
static const struct bus_ops fast_ops = { fast_read, fast_write, 1, 1 };

/* ---- the host's side ---- */

size_t
i8042_type(struct i8042 *k, const uint8_t *set1, size_t n)
{
	size_t taken = 0;

	while (taken < n && k->typed_len < TYPED_SIZE)
		k->typed[(k->typed_start + k->typed_len++) % TYPED_SIZE] = set1[taken++];
	fill(k);
	return taken;
}

static int32_t
add_bounded(int32_t sum, int v)
{
	int64_t s = (int64_t)sum + v;

	return (int32_t)(s > 32767 ? 32767 : s < -32767 ? -32767 : s);
}

static void
note_buttons(struct i8042 *k, uint8_t buttons)
{
	struct fifo *f = &k->mouse_clicks;

	if (buttons == (f->len ? f->b[f->len - 1] : k->mouse_buttons))
		return;
	if (f->len == sizeof(f->b)) /* at least the last state is right */
		f->len--;
	put(f, buttons);
}

void
i8042_mouse(struct i8042 *k, int dx, int dy, int dz, unsigned buttons)
{
	k->dx = add_bounded(k->dx, dx);
	k->dy = add_bounded(k->dy, dy < -32767 ? 32767 : -dy); /* the mouse counts away from the user */
	k->dz = add_bounded(k->dz, dz);
	note_buttons(k, buttons & 31);
	fill(k);
}

unsigned
i8042_leds(struct i8042 *k)
{
	return k->kbd_leds;
}

/* ---- the device ---- */

static const struct field fields[] = {
	FIELD(struct i8042, command),
	FIELD_ARRAY(struct i8042, ram),
	FIELD(struct i8042, status),
	FIELD(struct i8042, data),
	FIELD(struct i8042, pending_command),
	FIELD(struct i8042, output_port),
	FIELD(struct i8042, own),
	FIELD(struct i8042, own_aux),
	FIELD(struct i8042, kbd_out),
	FIELD(struct i8042, key),
	FIELD(struct i8042, kbd_set),
	FIELD(struct i8042, kbd_enabled),
	FIELD(struct i8042, kbd_leds),
	FIELD(struct i8042, kbd_command),
	FIELD(struct i8042, kbd_last),
	FIELD(struct i8042, break_seen),
	FIELD(struct i8042, key_at),
	FIELD(struct i8042, mouse_out),
	FIELD(struct i8042, mouse_enabled),
	FIELD(struct i8042, mouse_remote),
	FIELD(struct i8042, mouse_wrap),
	FIELD(struct i8042, mouse_id),
	FIELD(struct i8042, mouse_command),
	FIELD(struct i8042, mouse_scaling),
	FIELD(struct i8042, mouse_resolution),
	FIELD(struct i8042, mouse_rate),
	FIELD(struct i8042, mouse_knock),
	FIELD(struct i8042, mouse_buttons),
	FIELD(struct i8042, mouse_clicks),
	FIELD(struct i8042, dx),
	FIELD(struct i8042, dy),
	FIELD(struct i8042, dz),
	FIELD_END,
};

static void
reset(struct device *d)
{
	struct i8042 *k = (struct i8042 *)d;

	k->command = CMD_KBD_IRQ | CMD_AUX_IRQ | CMD_TRANSLATE;
	memset(k->ram, 0, sizeof(k->ram));
	k->status = 0;
	k->data = 0;
	k->pending_command = 0;
	k->output_port = 0xcf;
	k->own.len = k->own_aux.len = 0;
	k->break_seen = 0;
	k->key_at = 0;
	keyboard_reset(k);
	mouse_reset(k);
	k->mouse_clicks.len = 0;
	k->typed_len = 0;
	vtimer_cancel(&k->pace);
	drive(k);
}

static void
clamp(struct fifo *f)
{
	f->len = MIN(f->len, sizeof(f->b));
}

static void
loaded(struct device *d)
{
	struct i8042 *k = (struct i8042 *)d;

	clamp(&k->own);
	clamp(&k->own_aux);
	clamp(&k->kbd_out);
	clamp(&k->key);
	clamp(&k->mouse_out);
	clamp(&k->mouse_clicks);
	drive(k);
	fill(k);
}

static void
destroy(struct device *d)
{
	vtimer_cancel(&((struct i8042 *)d)->pace);
	free(d);
}

static const struct dev_class class = {
	.name = "i8042",
	.fields = fields,
	.reset = reset,
	.loaded = loaded,
	.destroy = destroy,
};

struct i8042 *
i8042_create(struct machine *m, struct irq irq1, struct irq irq12)
{
	struct i8042 *k = xcalloc(1, sizeof(*k));

	device_add(m, &k->dev, &class);
	k->irq1 = irq1;
	k->irq12 = irq12;
	vtimer_init(&k->pace, &m->clock, pace_expired, k);
	io_add(&m->io, 0x60, 1, &data_ops, k);
	io_add(&m->io, 0x64, 1, &status_ops, k);
	io_add(&m->io, 0x92, 1, &fast_ops, k);
	reset(&k->dev);
	return k;
}
