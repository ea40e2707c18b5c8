/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XML from strangers as a tree: expat with namespaces, and bounds. Private to host/.
 */
#ifndef HOST_OVF_XML_H
#define HOST_OVF_XML_H

#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

#define XML_SIZE_MAX (16u << 20)
#define XML_DEPTH_MAX 64
#define XML_NODES_MAX 200000 /* elements and attributes */

struct xml_attr {
	struct xml_attr *next;
	char *name, *value;
};

/* An element. Names are local ones; `ns` is the URI of its namespace, "" for none. */
struct xml {
	struct xml *parent, *child, *last, *next;
	struct xml_attr *attr;
	char *ns, *name;
	struct str text; /* of the element itself, in one piece */
};

/* The root of the document; `what` names it in errors. DOCTYPEs are refused. NULL and *e (ERR_XML). */
struct xml *xml_parse(const char *text, size_t len, const char *what, struct err *e);
void xml_free(struct xml *x);

bool xml_is(const struct xml *x, const char *name);
/* The first child of that name; NULL: none, or x is NULL. */
const struct xml *xml_child(const struct xml *x, const char *name);
/* The next sibling of the same name. */
const struct xml *xml_again(const struct xml *x);
/* NULL when there is none, or x is NULL. */
const char *xml_attr(const struct xml *x, const char *name);
/* Of the child `name` without the blanks around it; free() it. NULL: there is no such child, or it is empty. */
char *xml_child_text(const struct xml *x, const char *name);

/* Append text with what is special in elements and attributes replaced. */
void xml_escape(struct str *out, const char *text);

#endif
