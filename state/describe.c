/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The description: everything of a machine but its memory, as a list of parts with named fields.
 *
 *	u32 number of parts; for each part:
 *		u8 length, name ("clock", "cpu0", "device e1000"); u32 number of fields; for each field:
 *			u8 length, name; u32 size of an element, u32 number of elements; the elements
 *
 * One list of items (where in memory, how large, how called) is made from the machine, mostly from the tables of its
 * devices; saving copies out of the items, loading into them. A file whose parts and fields are not exactly those of
 * the machine is refused, with the name of the first that differs; only then is anything copied.
 *
 * Order after the copy: the clock, so that "now" is what it was; BARs and INTx of all PCI functions; then each device's
 * own conclusions (dev_class.loaded). Interrupt controllers know the levels of their inputs from the file, so a device
 * that drives its line again makes no new edge.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "state/private.h"

#define PARTS_MAX 4096u
#define FIELDS_MAX 4096u

struct item {
	const char *name;
	uint32_t size, count;
	void *at;
};

struct part {
	char name[64];
	struct item *item;
	uint32_t count;
};

/* What is not a field of anything, or not in this form. */
struct clock_part {
	uint64_t now, tsc, tsc_hz;
};
struct request_part {
	uint32_t pending, run_state, sipi_vector;
};

struct parts {
	struct machine *m;
	struct cpus *c;
	struct part *part;
	uint32_t count;
	struct clock_part clock;
	struct request_part request[CPUS_MAX];
};

#define REQUESTS_SAVED (REQ_NMI | REQ_SMI | REQ_INIT | REQ_SIPI) /* REQ_INTR follows from the local APIC */

/* ---- the list of items ---- */

static struct part *
add_part(struct parts *p, const char *kind, const char *name)
{
	struct part *part;

	p->part = realloc(p->part, (p->count + 1) * sizeof(*p->part));
	if (!p->part)
		abort();
	part = &p->part[p->count++];
	*part = (struct part){ 0 };
	snprintf(part->name, sizeof(part->name), "%s%s%s", kind, name ? " " : "", name ? name : "");
	return part;
}

static void
add_item(struct part *part, const char *name, uint32_t size, uint32_t count, void *at)
{
	part->item = realloc(part->item, (part->count + 1) * sizeof(*part->item));
	if (!part->item)
		abort();
	part->item[part->count++] = (struct item){ name, size, count, at };
}

static void
add_fields(struct part *part, const struct field *f, void *object)
{
	for (; f && f->name; f++)
		add_item(part, f->name, f->size, f->count, (uint8_t *)object + f->offset);
}

static const struct field clock_fields[] = {
	FIELD(struct clock_part, now),
	FIELD(struct clock_part, tsc),
	FIELD(struct clock_part, tsc_hz),
	FIELD_END,
};

static const struct field pci_bus_fields[] = { FIELD(struct pci_bus, config_address), FIELD_END };

static const struct field request_fields[] = {
	FIELD(struct request_part, pending),
	FIELD(struct request_part, run_state),
	FIELD(struct request_part, sipi_vector),
	FIELD_END,
};

/* Each member by itself: what lies between them is nobody's. */
#define SEGMENT(n)                                                                                                     \
	FIELD(struct x86_state, seg[n].sel), FIELD(struct x86_state, seg[n].attr),                                     \
		FIELD(struct x86_state, seg[n].limit), FIELD(struct x86_state, seg[n].base)
#define R(member) FIELD(struct x86_state, member)
#define A(member) FIELD_ARRAY(struct x86_state, member)

static const struct field cpu_fields[] = { A(gpr), R(rip), R(rflags), SEGMENT(SEG_ES), SEGMENT(SEG_CS), SEGMENT(SEG_SS),
	SEGMENT(SEG_DS), SEGMENT(SEG_FS), SEGMENT(SEG_GS), SEGMENT(SEG_LDTR), SEGMENT(SEG_TR), R(gdt.base),
	R(gdt.limit), R(idt.base), R(idt.limit), R(cr0), R(cr2), R(cr3), R(cr4), R(xcr0), A(dr), R(efer), R(star),
	R(lstar), R(cstar), R(sfmask), R(kernel_gs_base), R(tsc_aux), R(sysenter_cs), R(sysenter_esp), R(sysenter_eip),
	R(pat), R(misc_enable), R(spec_ctrl), R(tsc_adjust), R(mcg_status), R(mtrr_def_type), A(mtrr_fixed),
	A(mtrr_base), A(mtrr_mask), A(pdpte), R(shadow), R(nmi_blocked), R(smm), R(smbase), R(x87.fcw), R(x87.fsw),
	R(x87.ftw), R(x87.fop), R(x87.fip), R(x87.fdp), R(x87.mxcsr), A(x87.st), A(zmm), A(k), FIELD_END };

#undef R
#undef A

static const struct field model_fields[] = {
	FIELD_ARRAY(struct cpu_model, name),
	FIELD(struct cpu_model, leaf_count),
	FIELD_ARRAY(struct cpu_model, leaf),
	FIELD(struct cpu_model, xcr0_supported),
	FIELD(struct cpu_model, cr4_supported),
	FIELD(struct cpu_model, efer_supported),
	FIELD(struct cpu_model, phys_bits),
	FIELD(struct cpu_model, virt_bits),
	FIELD_END,
};

static struct pci_dev *
pci_of(struct machine *m, const struct device *d)
{
	for (size_t i = 0; i < ARRAY_LEN(m->pci.devs); i++)
		if (m->pci.devs[i] && &m->pci.devs[i]->dev == d)
			return m->pci.devs[i];
	return NULL;
}

static void
add_device(struct parts *p, struct device *d)
{
	struct pci_dev *pci = pci_of(p->m, d);
	struct part *part = add_part(p, "device", d->name);

	if (pci) {
		add_fields(part, pci_fields, pci);
		if (pci->msix_vectors) {
			add_item(part, "msix_table", 16, pci->msix_vectors, pci->msix_table);
			add_item(part, "msix_pba", 8, (pci->msix_vectors + 63u) / 64, pci->msix_pba);
		}
	}
	add_fields(part, d->class->fields, d);
}

static void
list_parts(struct parts *p, struct machine *m, struct cpus *c)
{
	struct part *part;

	*p = (struct parts){ .m = m, .c = c };
	add_fields(add_part(p, "model", NULL), model_fields, &c->model);
	add_fields(add_part(p, "clock", NULL), clock_fields, &p->clock);
	add_fields(add_part(p, "pci", NULL), pci_bus_fields, &m->pci);
	for (int i = 0; i < c->count; i++) {
		char number[16];

		snprintf(number, sizeof(number), "cpu%d", i);
		part = add_part(p, number, NULL);
		add_fields(part, cpu_fields, &c->cpu[i]->state);
		add_fields(part, request_fields, &p->request[i]);
	}
	for (struct device *d = m->devices; d; d = d->next)
		add_device(p, d);
}

static void
free_parts(struct parts *p)
{
	for (uint32_t i = 0; i < p->count; i++)
		free(p->part[i].item);
	free(p->part);
}

/* ---- out ---- */

static void
put_u32(struct str *s, uint32_t v)
{
	uint8_t b[4];

	put_le32(b, v);
	str_addn(s, (char *)b, 4);
}

static void
put_name(struct str *s, const char *name)
{
	uint8_t n = (uint8_t)strlen(name); /* of ours: never as long as 255 */

	str_addn(s, (char *)&n, 1);
	str_addn(s, name, n);
}

static void
gather(struct parts *p)
{
	p->clock = (struct clock_part){ clock_now(&p->m->clock), clock_tsc(&p->m->clock), p->m->clock.tsc_hz };
	for (int i = 0; i < p->c->count; i++) {
		struct vcpu *v = p->c->cpu[i];

		p->request[i] = (struct request_part){ v->requests & REQUESTS_SAVED, v->run_state, v->sipi_vector };
	}
}

void
state_describe(struct str *out, struct machine *m, struct cpus *c)
{
	struct parts p;

	list_parts(&p, m, c);
	gather(&p);
	put_u32(out, p.count);
	for (uint32_t i = 0; i < p.count; i++) {
		put_name(out, p.part[i].name);
		put_u32(out, p.part[i].count);
		for (uint32_t k = 0; k < p.part[i].count; k++) {
			const struct item *it = &p.part[i].item[k];

			put_name(out, it->name);
			put_u32(out, it->size);
			put_u32(out, it->count);
			str_addn(out, it->at, (size_t)it->size * it->count);
		}
	}
	free_parts(&p);
}

/* ---- in ---- */

struct cursor {
	const uint8_t *p;
	size_t left;
	bool bad;
};

static const uint8_t *
take(struct cursor *c, uint64_t n)
{
	const uint8_t *p = c->p;

	if (c->bad || n > c->left) {
		c->bad = true;
		return NULL;
	}
	c->p += n;
	c->left -= n;
	return p;
}

static uint32_t
take_u32(struct cursor *c)
{
	const uint8_t *p = take(c, 4);

	return p ? le32(p) : 0;
}

static void
take_name(struct cursor *c, char out[256])
{
	const uint8_t *n = take(c, 1), *p = n ? take(c, *n) : NULL;

	out[0] = 0;
	if (p) {
		memcpy(out, p, *n);
		out[*n] = 0;
	}
}

/* The next field; false behind the last or when it does not fit. */
static bool
take_field(struct cursor *c, char name[256], uint32_t *size, uint32_t *count, const uint8_t **at)
{
	take_name(c, name);
	*size = take_u32(c);
	*count = take_u32(c);
	*at = take(c, (uint64_t)*size * *count);
	return !c->bad;
}

static struct cursor
cursor_of(const struct state_file *f)
{
	return (struct cursor){ (const uint8_t *)f->description.s, f->description.len, false };
}

static int
bad_description(const struct state_file *f, struct err *e)
{
	return err_set(e, ERR_FILE, "The saved state '%s' is damaged: its description makes no sense", f->path);
}

/* Compare a part of the file with what the machine has; with `apply` copy. The structure was checked by state_parse().
 */
static int
take_part(const struct state_file *f, struct cursor *c, struct part *part, bool apply, struct err *e)
{
	char name[256];
	uint32_t fields, size, count;
	const uint8_t *at;

	take_name(c, name);
	fields = take_u32(c);
	if (strcmp(name, part->name))
		return err_set(e, ERR_INVALID,
			"The saved state '%s' is of another machine: it has '%s' where this one has '%s'", f->path,
			name, part->name);
	if (fields != part->count)
		return err_set(e, ERR_UNSUPPORTED,
			"The saved state '%s' was made by another version of this program: its '%s' has %u fields "
			"instead of %u",
			f->path, name, fields, part->count);
	for (uint32_t i = 0; i < fields; i++) {
		const struct item *it = &part->item[i];

		if (!take_field(c, name, &size, &count, &at))
			return bad_description(f, e);
		if (strcmp(name, it->name) || size != it->size || count != it->count)
			return err_set(e, ERR_UNSUPPORTED,
				"The saved state '%s' was made by another version of this program, or of another "
				"machine: its '%s' has the field '%s' (%u of %u bytes) where this one has '%s' (%u of "
				"%u bytes)",
				f->path, part->name, name, count, size, it->name, it->count, it->size);
		if (apply)
			memcpy(it->at, at, (size_t)size * count);
	}
	return 0;
}

static int
take_parts(const struct state_file *f, struct parts *p, bool apply, struct err *e)
{
	struct cursor c = cursor_of(f);
	uint32_t parts = take_u32(&c), cpus = 0;

	if (parts != p->count) {
		struct cursor look = c;
		char name[256];

		for (uint32_t i = 0; i < parts && !look.bad; i++) {
			uint32_t fields, size, count;
			const uint8_t *at;

			take_name(&look, name);
			fields = take_u32(&look);
			cpus += !strncmp(name, "cpu", 3);
			while (fields-- && take_field(&look, name, &size, &count, &at))
				;
		}
		if (cpus != (uint32_t)p->c->count)
			return err_set(e, ERR_INVALID,
				"The saved state '%s' is of another machine: it has %u CPUs and this one has %d",
				f->path, cpus, p->c->count);
	}
	for (uint32_t i = 0; i < MIN(parts, p->count); i++)
		if (take_part(f, &c, &p->part[i], apply, e))
			return -1;
	if (parts != p->count)
		return err_set(e, ERR_INVALID,
			"The saved state '%s' is of another machine: it has %u parts and this one has %u", f->path,
			parts, p->count);
	return 0;
}

int
state_parse(struct state_file *f, struct err *e)
{
	struct part model = { .name = "model" };
	struct cursor c = cursor_of(f);
	uint32_t parts = take_u32(&c);
	int r;

	for (uint32_t i = 0; i < parts && parts <= PARTS_MAX && !c.bad; i++) {
		char name[256];
		uint32_t fields, size, count;
		const uint8_t *at;

		take_name(&c, name);
		fields = take_u32(&c);
		c.bad |= fields > FIELDS_MAX;
		while (!c.bad && fields--)
			take_field(&c, name, &size, &count, &at);
	}
	if (c.bad || c.left || !parts || parts > PARTS_MAX)
		return bad_description(f, e);
	c = cursor_of(f);
	take_u32(&c);
	add_fields(&model, model_fields, &f->model);
	r = take_part(f, &c, &model, true, e);
	free(model.item);
	f->model.name[sizeof(f->model.name) - 1] = 0;
	if (!r && (f->model.leaf_count < 0 || f->model.leaf_count > (int)ARRAY_LEN(f->model.leaf)))
		return bad_description(f, e);
	return r;
}

/* ---- conclusions ---- */

/*
 * What no CPU can be in, whatever a file says: the engines run on these values, on the host's registers for some.
 * Everything else a guest could have put there itself.
 */
static void
bound_cpu(struct vcpu *v, const struct request_part *q)
{
	const struct cpu_model *m = &v->cpus->model;
	struct x86_state *s = &v->state;

	s->rflags = (s->rflags & 0x3f7fd5) | 2;
	s->cr0 |= CR0_ET;
	s->cr4 &= m->cr4_supported;
	s->efer &= m->efer_supported | EFER_LMA;
	s->xcr0 = (s->xcr0 & m->xcr0_supported) | 1;
	s->dr[6] &= UINT32_MAX;
	s->dr[7] &= UINT32_MAX;
	s->x87.mxcsr &= 0xffff;
	s->shadow = s->shadow != 0;
	s->nmi_blocked = s->nmi_blocked != 0;
	s->smm = 0;
	/* Long mode is active exactly when it is enabled and paging is on (SDM 3A 2.2.1) */
	if (s->efer & EFER_LME && s->cr0 & CR0_PG)
		s->efer |= EFER_LMA;
	else
		s->efer &= ~(uint64_t)EFER_LMA;
	v->run_state =
		q->run_state <= VCPU_HALT || q->run_state == VCPU_DEAD ? (enum vcpu_run_state)q->run_state : VCPU_RUN;
	v->sipi_vector = (uint8_t)q->sipi_vector;
	v->requests = (v->requests & ~(uint32_t)REQUESTS_SAVED) | (q->pending & REQUESTS_SAVED);
}

static void
conclude(struct parts *p)
{
	struct machine *m = p->m;

	clock_set(&m->clock, p->clock.now, p->clock.tsc);
	/* The same host a moment or a year later measures its rate a little differently; guests were told this one. */
	if (p->clock.tsc_hz > m->clock.tsc_hz - m->clock.tsc_hz / 100 &&
		p->clock.tsc_hz < m->clock.tsc_hz + m->clock.tsc_hz / 100)
		m->clock.tsc_hz = p->clock.tsc_hz;
	for (int i = 0; i < p->c->count; i++)
		bound_cpu(p->c->cpu[i], &p->request[i]);
	for (size_t i = 0; i < ARRAY_LEN(m->pci.devs); i++)
		if (m->pci.devs[i])
			pci_loaded(m->pci.devs[i]);
	for (struct device *d = m->devices; d; d = d->next)
		if (d->class->loaded)
			d->class->loaded(d);
	for (int i = 0; i < p->c->count; i++)
		p->c->engine->put_state(p->c->cpu[i]);
}

static int
match_memory(struct state_file *f, struct machine *m, struct err *e)
{
	int i = 0;

	for (struct ram *r = m->mem.rams; r; r = r->next, i++) {
		struct state_ram *s = &f->map.ram[i];

		if (i >= f->map.rams || strncmp(s->name, r->name, sizeof(s->name) - 1) || s->size != r->size)
			return err_set(e, ERR_INVALID,
				"The saved state '%s' is of another machine: it has %llu KiB of memory '%s' where this "
				"one has %llu KiB of '%s'",
				f->path, i < f->map.rams ? (unsigned long long)s->size >> 10 : 0,
				i < f->map.rams ? s->name : "", (unsigned long long)r->size >> 10, r->name);
		s->ram = r;
	}
	if (i != f->map.rams)
		return err_set(e, ERR_INVALID,
			"The saved state '%s' is of another machine: it has %d blocks of memory and this one has %d",
			f->path, f->map.rams, i);
	return 0;
}

int
state_load(struct state_file *f, struct machine *m, struct cpus *c, struct err *e)
{
	struct parts p;
	int r;

	list_parts(&p, m, c);
	r = match_memory(f, m, e) || take_parts(f, &p, false, e) ? -1 : 0;
	if (!r) {
		take_parts(f, &p, true, NULL);
		conclude(&p);
	}
	free_parts(&p);
	return r;
}

int
state_print(const struct state_file *f, FILE *out)
{
	struct cursor c = cursor_of(f);
	uint32_t parts = take_u32(&c);

	for (uint32_t i = 0; i < parts; i++) {
		char part[256], name[256];
		uint32_t fields, size, count;
		const uint8_t *at;

		take_name(&c, part);
		fields = take_u32(&c);
		while (fields-- && take_field(&c, name, &size, &count, &at)) {
			fprintf(out, "%s.%s ", part, name);
			for (uint32_t k = 0; k < size * count && k < 64; k++)
				fprintf(out, "%02x%s", at[k], (k + 1) % size ? "" : " ");
			fprintf(out, "\n");
		}
	}
	return c.bad ? -1 : 0;
}
