/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The codec of the HD Audio controller: what answers verbs. It identifies itself as a SigmaTel STAC9221, the one that
 * VirtualBox's machines have, and has of it what is used: one converter each way and two jacks.
 *
 *	1 function group   2 DAC -> 4 line out (green)   5 line in (blue) -> 3 ADC
 */
#ifndef DEV_HDA_CODEC_H
#define DEV_HDA_CODEC_H

#include <stdbool.h>
#include <stdint.h>

#define HDA_NODES 6
#define HDA_NODE_FIELDS(type, codec)                                                                                   \
	FIELD_ARRAY(type, codec.config), FIELD_ARRAY(type, codec.format), FIELD_ARRAY(type, codec.stream),             \
		FIELD_ARRAY(type, codec.control), FIELD_ARRAY(type, codec.power),                                      \
		FIELD_ARRAY(type, codec.unsolicited), FIELD_ARRAY(type, codec.amp), FIELD(type, codec.subsystem)

struct hda_codec {
	uint32_t config[HDA_NODES]; /* of a jack: what it is, as firmware would tell */
	uint32_t subsystem;
	uint16_t format[HDA_NODES];
	uint8_t stream[HDA_NODES]; /* 7:4 number, 3:0 first channel */
	uint8_t control[HDA_NODES], power[HDA_NODES], unsolicited[HDA_NODES];
	uint8_t amp[2 * HDA_NODES]; /* left and right: 7 mute, 6:0 gain */
};

void hda_codec_reset(struct hda_codec *c);
/* The response to a verb: 27:20 node, 19:0 verb and payload. */
uint32_t hda_codec_verb(struct hda_codec *c, uint32_t verb);
/* Is what comes with this stream number (1 to 15) heard? */
bool hda_codec_plays(const struct hda_codec *c, unsigned stream);

#endif
