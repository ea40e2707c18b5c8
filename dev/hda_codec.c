/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verbs and parameters: "High Definition Audio Specification" 1.0a, chapter 7. A parameter or verb that a node does not
 * have answers 0, as the specification wants it.
 */
#include "dev/hda_codec.h"

#include <stddef.h>
#include <string.h>

#include "base/str.h"

enum { ROOT, GROUP, DAC, ADC, LINE_OUT, LINE_IN };

enum { /* parameters */
	P_VENDOR = 0x00,
	P_REVISION = 0x02,
	P_NODES = 0x04,
	P_GROUP_TYPE = 0x05,
	P_GROUP_CAPS = 0x08,
	P_CAPS = 0x09,
	P_RATES = 0x0a,
	P_FORMATS = 0x0b,
	P_PIN_CAPS = 0x0c,
	P_IN_AMP = 0x0d,
	P_CONNECTIONS = 0x0e,
	P_POWER = 0x0f,
	P_OUT_AMP = 0x12,
};

enum { /* verbs; writes are 0x800 below their reads but for those of 4 bits */
	V_PARAMETER = 0xf00,
	V_CONNECTION_LIST = 0xf02,
	V_POWER = 0xf05,
	V_STREAM = 0xf06,
	V_CONTROL = 0xf07,
	V_UNSOLICITED = 0xf08,
	V_SENSE = 0xf09,
	V_CONFIG = 0xf1c,
	V_SUBSYSTEM = 0xf20,
	V_RESET = 0x7ff,
	V_FORMAT = 0xa,
	V_AMP = 0xb,
	V_SET_FORMAT = 0x2,
	V_SET_AMP = 0x3,
};

#define VENDOR_ID 0x83847680u
#define RATES 0x0002007fu   /* 8 to 48 kHz, 16 bits */
#define OUT_AMP 0x80051f1fu /* mute; 32 steps of 1.5 dB, the last is 0 dB */
#define IN_AMP 0x80050f00u  /* mute; 16 steps up from 0 dB */
#define LINE_OUT_JACK 0x01014110u
#define LINE_IN_JACK 0x01813120u
#define MUTE 0x80

struct parameter {
	uint8_t node, number;
	uint32_t value;
};

static const struct parameter parameters[] = {
	{ ROOT, P_VENDOR, VENDOR_ID },
	{ ROOT, P_REVISION, 0x00103402 },
	{ ROOT, P_NODES, GROUP << 16 | 1 },
	{ GROUP, P_NODES, DAC << 16 | 4 },
	{ GROUP, P_GROUP_TYPE, 1 },
	{ GROUP, P_GROUP_CAPS, 0x0d0c },
	{ GROUP, P_RATES, RATES },
	{ GROUP, P_FORMATS, 1 },
	{ GROUP, P_POWER, 0x0f },
	{ DAC, P_CAPS, 0x0000041d },
	{ DAC, P_RATES, RATES },
	{ DAC, P_FORMATS, 1 },
	{ DAC, P_OUT_AMP, OUT_AMP },
	{ DAC, P_POWER, 0x0f },
	{ ADC, P_CAPS, 0x0010051b },
	{ ADC, P_RATES, RATES },
	{ ADC, P_FORMATS, 1 },
	{ ADC, P_IN_AMP, IN_AMP },
	{ ADC, P_CONNECTIONS, 1 },
	{ ADC, P_POWER, 0x0f },
	{ LINE_OUT, P_CAPS, 0x00400101 },
	{ LINE_OUT, P_PIN_CAPS, 0x10 },
	{ LINE_OUT, P_CONNECTIONS, 1 },
	{ LINE_IN, P_CAPS, 0x00400001 },
	{ LINE_IN, P_PIN_CAPS, 0x20 },
};

void
hda_codec_reset(struct hda_codec *c)
{
	memset(c, 0, sizeof(*c));
	c->config[LINE_OUT] = LINE_OUT_JACK;
	c->config[LINE_IN] = LINE_IN_JACK;
	c->subsystem = VENDOR_ID;
	memset(c->amp, MUTE, sizeof(c->amp));
}

static uint32_t
parameter(unsigned node, unsigned number)
{
	for (size_t i = 0; i < ARRAY_LEN(parameters); i++)
		if (parameters[i].node == node && parameters[i].number == number)
			return parameters[i].value;
	return 0;
}

static bool
is_converter(unsigned node)
{
	return node == DAC || node == ADC;
}

/* 15 output, 14 input, 13 left, 12 right, 7:0 the value. A converter has an amplifier on one side only. */
static void
set_amp(struct hda_codec *c, unsigned node, uint32_t payload)
{
	if (!is_converter(node) || !(payload & (node == DAC ? 0x8000u : 0x4000u)))
		return;
	for (unsigned side = 0; side < 2; side++)
		if (payload & (0x2000u >> side))
			c->amp[2 * node + side] = (uint8_t)payload;
}

static uint32_t
get_amp(const struct hda_codec *c, unsigned node, uint32_t payload)
{
	bool output = payload & 0x8000;

	if (!is_converter(node) || output != (node == DAC))
		return 0;
	return c->amp[2 * node + !(payload & 0x2000)];
}

static uint32_t
connection(unsigned node, unsigned first)
{
	if (first)
		return 0;
	return node == LINE_OUT ? DAC : node == ADC ? LINE_IN : 0;
}

static uint32_t
get(const struct hda_codec *c, unsigned node, unsigned verb, unsigned payload)
{
	switch (verb) {
	case V_PARAMETER:
		return parameter(node, payload);
	case V_CONNECTION_LIST:
		return connection(node, payload);
	case V_POWER: /* as set, and reached */
		return c->power[node] | (uint32_t)c->power[node] << 4;
	case V_STREAM:
		return c->stream[node];
	case V_CONTROL:
		return c->control[node];
	case V_UNSOLICITED:
		return c->unsolicited[node];
	case V_SENSE:
		return 0x80000000u;
	case V_CONFIG:
	case V_CONFIG + 1:
	case V_CONFIG + 2:
	case V_CONFIG + 3:
		return c->config[node];
	case V_SUBSYSTEM:
		return node == GROUP ? c->subsystem : 0;
	default:
		return 0;
	}
}

static void
put_byte(uint32_t *word, unsigned byte, uint8_t value)
{
	*word = (*word & ~(0xffu << 8 * byte)) | (uint32_t)value << 8 * byte;
}

static void
set(struct hda_codec *c, unsigned node, unsigned verb, uint8_t value)
{
	unsigned of = verb + 0x800;

	if (verb == V_RESET && node == GROUP)
		hda_codec_reset(c);
	else if (of == V_POWER)
		c->power[node] = value & 3;
	else if (of == V_STREAM && is_converter(node))
		c->stream[node] = value;
	else if (of == V_CONTROL && node >= LINE_OUT)
		c->control[node] = value;
	else if (of == V_UNSOLICITED)
		c->unsolicited[node] = value;
	else if (of >= V_CONFIG && of < V_CONFIG + 4 && node >= LINE_OUT)
		put_byte(&c->config[node], of - V_CONFIG, value);
	else if (of >= V_SUBSYSTEM && of < V_SUBSYSTEM + 4 && node == GROUP)
		put_byte(&c->subsystem, of - V_SUBSYSTEM, value);
}

uint32_t
hda_codec_verb(struct hda_codec *c, uint32_t word)
{
	unsigned node = word >> 20 & 0xff, verb = word >> 8 & 0xfff;

	if (node >= HDA_NODES || word >> 27 & 1) /* 27: an indirect node, which there is none of */
		return 0;
	switch (verb >> 8) {
	case V_FORMAT:
		return c->format[node];
	case V_AMP:
		return get_amp(c, node, word);
	case V_SET_FORMAT:
		if (is_converter(node))
			c->format[node] = (uint16_t)word;
		return 0;
	case V_SET_AMP:
		set_amp(c, node, word);
		return 0;
	case 7:
		set(c, node, verb, (uint8_t)word);
		return 0;
	default:
		return get(c, node, verb, word & 0xff);
	}
}

bool
hda_codec_plays(const struct hda_codec *c, unsigned stream)
{
	return stream && c->stream[DAC] >> 4 == stream && !(c->amp[2 * DAC] & c->amp[2 * DAC + 1] & MUTE) &&
	       (c->control[LINE_OUT] & 0x40);
}
