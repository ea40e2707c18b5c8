# SPDX-License-Identifier: Apache-2.0
# One Makefile for the whole tree. `make help` lists what it can do.
#
# Each directory of the map becomes one archive $(OUT)/lib<dir>.a; programs and tests link the archives of the layers
# they may see (LAYERS_<dir>), so that a forbidden dependency does not link. SAN=address|thread|undefined builds the same
# things into a directory of their own.

SAN    ?=
OUT    ?= out$(if $(SAN),/san-$(SAN))
PREFIX ?= /usr/local
CC     ?= gcc
VERSION := 0.1.0

WARN   := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wimplicit-fallthrough -Wvla -Wno-unused-parameter
HARDEN := $(if $(SAN),,-D_FORTIFY_SOURCE=2) -fstack-protector-strong -fPIE
OPT    ?= -O2 -g
CFLAGS := -std=gnu11 $(OPT) $(WARN) $(if $(CI),-Werror) $(HARDEN) $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer) -pthread
CPPFLAGS := -I. -D_GNU_SOURCE -DLODGE_VERSION='"$(VERSION)"' -DLODGE_PREFIX='"$(PREFIX)"' \
	$(shell pkg-config --cflags slirp sqlite3 jansson libseccomp libpng libcrypto libarchive expat 2>/dev/null)
LDFLAGS := -pie -Wl,--as-needed -Wl,-z,relro,-z,now $(if $(SAN),-fsanitize=$(SAN)) -pthread

# Code that runs while a guest's vector registers are in the host's (cpu/jit/fp.c).
# No loop may become a call of memcpy() or memset(), which use vector registers: gcc and clang say that differently.
# (Not -fno-builtin: clang would forget that setjmp() returns twice.)
GENERAL := -mgeneral-regs-only $(if $(findstring clang,$(CC)),-mllvm -disable-loop-idiom-all,-fno-tree-loop-distribute-patterns)
CFLAGS_cpu_jit_run := $(GENERAL)
CFLAGS_cpu_jit_fp := $(GENERAL)
CFLAGS_cpu_jit_string := $(GENERAL)
CFLAGS_cpu_jit_cache := $(GENERAL)
CFLAGS_cpu_jit_window := $(GENERAL)
CFLAGS_cpu_x86_mmu := $(GENERAL)
CFLAGS_cpu_jit_system := $(GENERAL)
CFLAGS_cpu_x86_excp := $(GENERAL)
CFLAGS_cpu_x86_sys := $(GENERAL)
CFLAGS_cpu_x86_seg := $(GENERAL)
CFLAGS_bus_mem := $(GENERAL)

DIRS  := base share bus block net switch nethelper cpu debug dev machine display state vm host
# What an archive needs to link: itself and the layers below it (doc/architecture.md).
LAYERS_base    := base
LAYERS_share   := share base
LAYERS_bus     := bus base
LAYERS_block   := block base
LAYERS_net     := net base
LAYERS_switch  := switch net base
LAYERS_nethelper := nethelper net base
LAYERS_cpu     := cpu bus base
LAYERS_debug   := debug cpu bus base
LAYERS_dev     := dev bus block net share base
LAYERS_display := display bus base
LAYERS_machine := machine display dev cpu bus block net share base
LAYERS_state   := state machine display dev cpu bus block net share base
LAYERS_vm      := vm debug state machine display dev cpu bus block net share base
LAYERS_host    := host block net share base

LIBS_block := -lz -lzstd -lcrypto
LIBS_net   := $(shell pkg-config --libs slirp 2>/dev/null || echo -lslirp)
LIBS_switch := -ljansson -lseccomp
LIBS_cpu   := -lZydis -lZycore
LIBS_display := -lpng -lz -lcrypto
LIBS_state := $(shell pkg-config --libs libzstd 2>/dev/null || echo -lzstd)
LIBS_vm    := -lseccomp -ljansson
LIBS_host  := -lsqlite3 -ljansson -lexpat -larchive -lz -lcrypto -lcrypt
LIBS_base  := -lm

src = $(filter-out %/main.c,$(wildcard $(1)/*.c $(1)/*/*.c))
obj = $(patsubst %.c,$(OUT)/obj/%.o,$(1))
archives = $(foreach d,$(1),$(OUT)/lib$(d).a)
syslibs = $(foreach d,$(1),$(LIBS_$(d)))

# The same program under names that do something else, or the same for who writes them so.
VBOXMANAGE_NAMES := vboxmanage VBoxHeadless vboxheadless
PROGRAMS := $(addprefix $(OUT)/bin/,lodge VBoxManage $(VBOXMANAGE_NAMES) lodge-vm) \
	$(patsubst %,$(OUT)/bin/lodge-%,$(patsubst %/main.c,%,$(wildcard switch/main.c nethelper/main.c)))

.PHONY: all help demo check check-long bench lint clean install deps deps-demo deps-test format fuzz unit units libs print-fuzz-flags bench-programs
all: $(PROGRAMS) $(OUT)/bin/lodge-agent $(OUT)/VBoxGuestAdditions.iso

help: ## this text
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

# ---- archives, one a directory ----
define archive
$(OUT)/lib$(1).a: $(call obj,$(call src,$(1)))
	@mkdir -p $$(@D)
	@rm -f $$@
	@echo "  AR  $$@"
	@ar rcs $$@ $$^
endef
$(foreach d,$(DIRS),$(eval $(call archive,$(d))))

# Makefile too: some objects are only right with the flags it gives them (GENERAL).
$(OUT)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "  CC  $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(CFLAGS_$(subst /,_,$*)) -MMD -MP -c -o $@ $<

# ---- programs ----
define link
	@mkdir -p $(@D)
	@echo "  LD  $@"
	@$(CC) $(LDFLAGS) -o $@ $(1) -Wl,--start-group $(call archives,$(2)) -Wl,--end-group $(call syslibs,$(2))
endef

HOST_LAYERS := $(LAYERS_host)
$(OUT)/bin/VBoxManage: $(call obj,$(wildcard front/vboxmanage/*.c)) $(call archives,$(HOST_LAYERS))
	$(call link,$(filter %.o,$^),$(HOST_LAYERS))
$(addprefix $(OUT)/bin/,$(VBOXMANAGE_NAMES)): $(OUT)/bin/VBoxManage
	@ln -sf VBoxManage $@
# `lodge` runs throw-away machines in its own process (lodge boot), so it also has the machine.
LODGE_LAYERS := host $(LAYERS_vm)
$(OUT)/bin/lodge: $(call obj,$(wildcard front/lodge/*.c)) $(call archives,$(LODGE_LAYERS))
	$(call link,$(filter %.o,$^),$(LODGE_LAYERS))
$(OUT)/bin/lodge-vm: $(call obj,vm/main.c) $(call archives,$(LAYERS_vm))
	$(call link,$(filter %.o,$^),$(LAYERS_vm))

$(OUT)/bin/lodge-switch: $(call obj,switch/main.c) $(call archives,$(LAYERS_switch))
	$(call link,$(filter %.o,$^),$(LAYERS_switch))
$(OUT)/bin/lodge-nethelper: $(call obj,nethelper/main.c) $(call archives,$(LAYERS_nethelper))
	$(call link,$(filter %.o,$^),$(LAYERS_nethelper))

# ---- the guest agent: one static program that runs in any Linux guest, and the disc that brings it there ----
AGENT_SRC := $(wildcard agent/*.c) base/str.c base/err.c base/base64.c
AGENT_OBJ := $(patsubst %.c,$(OUT)/obj/agent-static/%.o,$(AGENT_SRC))
$(OUT)/obj/agent-static/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "  CC  $< (static)"
	@$(CC) -I. -D_GNU_SOURCE -DLODGE_VERSION='"$(VERSION)"' -std=gnu11 -Os -g $(WARN) $(if $(CI),-Werror) \
		-D_FORTIFY_SOURCE=2 -fstack-protector-strong -ffunction-sections -fdata-sections -MMD -MP -c -o $@ $<
$(OUT)/bin/lodge-agent: $(AGENT_OBJ)
	@mkdir -p $(@D)
	@echo "  LD  $@"
	@$(CC) -static -s -Wl,--gc-sections -o $@ $^ -ljansson -lcrypt
$(OUT)/VBoxGuestAdditions.iso: tools/make-additions $(OUT)/bin/lodge-agent
	@echo "  ISO $@"
	@tools/make-additions $@ $(OUT)/bin/lodge-agent $(VERSION)

# ---- unit tests: test/unit/<dir>/<name>.c links the layers of <dir> ----
UNIT_SRC := $(wildcard test/unit/*/*.c)
UNIT_BIN := $(patsubst test/unit/%.c,$(OUT)/unit/%,$(UNIT_SRC))
define unit
$(OUT)/unit/$(1)/%: $(OUT)/obj/test/unit/$(1)/%.o $$(call archives,$$(LAYERS_$(1)))
	@mkdir -p $$(@D)
	@echo "  LD  $$@"
	@$$(CC) $$(LDFLAGS) -o $$@ $$< -Wl,--start-group $$(call archives,$$(LAYERS_$(1))) -Wl,--end-group -lcmocka $$(call syslibs,$$(LAYERS_$(1)))
endef
$(foreach d,$(DIRS),$(eval $(call unit,$(d))))

unit: $(UNIT_BIN) ## build and run the unit tests
	@tools/run-tests $(UNIT_BIN)

# ---- instructions on the bare CPU and under engines: test/isa/<name>.c, each with the harness ----
ISA_HARNESS := test/isa/diff.c test/isa/generate.c
ISA_BIN := $(patsubst test/isa/%.c,$(OUT)/isa/%,$(filter-out $(ISA_HARNESS),$(wildcard test/isa/*.c)))
$(OUT)/isa/%: $(OUT)/obj/test/isa/%.o $(call obj,$(ISA_HARNESS)) $(call archives,$(LAYERS_cpu))
	$(call link,$(filter %.o,$^),$(LAYERS_cpu))

# ---- benchmarks written in C: bench/<name>.c ----
BENCH_BIN := $(patsubst bench/%.c,$(OUT)/bench/%,$(wildcard bench/*.c))
$(OUT)/bench/%: $(OUT)/obj/bench/%.o $(call archives,switch $(LAYERS_machine))
	$(call link,$<,switch $(LAYERS_machine))

# ---- what people and CI call ----

deps: ## install what building needs (Debian 12, apt)
	@tools/install-deps build
deps-demo:
	@tools/install-deps demo
deps-test:
	@tools/install-deps test

# A fresh machine has no compiler yet: the packages come first, then a second make that sees them.
demo: deps-demo ## from nothing to a page served by a guest
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@tools/demo $(OUT)/bin $(OUT)

check: deps-test ## build everything, lint it and run the tests
	@$(MAKE) --no-print-directory -j$$(nproc) all units
	@$(MAKE) --no-print-directory lint
	@tools/run-tests --bin $(OUT)/bin --out $(OUT) $(UNIT_BIN) $(ISA_BIN) $(sort $(wildcard test/cli/*.bats test/guest/*.bats))

ISA_SECONDS ?= 3600
check-long: check ## the checks that take long: boots of every kind, fuzzing, endurance, ISA_SECONDS of random programs
	@tools/install-deps bench
	@$(OUT)/isa/encodings --seed clock --seconds $(ISA_SECONDS)
	@$(MAKE) --no-print-directory fuzz
	@tools/run-tests --bin $(OUT)/bin --out $(OUT) $(sort $(wildcard test/long/*.bats))

bench: ## measure, side by side with what one would use instead
	@tools/install-deps bench
	@$(MAKE) --no-print-directory -j$$(nproc) all bench-programs
	@bench/run $(OUT)

units: $(UNIT_BIN) $(ISA_BIN)
bench-programs: $(BENCH_BIN)

lint: ## layers, headers alone, globals, formatting, shell scripts
	@echo "  LINT layers";  tools/lint-layers
	@echo "  LINT headers"; tools/lint-headers $(CC) $(CPPFLAGS)
	@echo "  LINT globals"; tools/lint-globals $(OUT)
	@echo "  LINT format";  clang-format --dry-run -Werror $$(git ls-files '*.c' '*.h')
	@echo "  LINT scripts"; shellcheck -S warning $$(git ls-files tools .ci 'test/*.sh' | xargs grep -lE '^#!.*sh$$')

FUZZ_SECONDS ?= 90
fuzz: ## run every fuzz target for FUZZ_SECONDS (default 90)
	@tools/run-fuzz $(OUT) $(FUZZ_SECONDS)

install: all ## install under PREFIX (default /usr/local); DESTDIR is honoured
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/libexec/lodge
	install -m 755 $(OUT)/bin/lodge $(OUT)/bin/VBoxManage $(DESTDIR)$(PREFIX)/bin/
	for n in $(VBOXMANAGE_NAMES); do ln -sf VBoxManage $(DESTDIR)$(PREFIX)/bin/$$n; done
	install -m 755 $(OUT)/bin/lodge-vm $(OUT)/bin/lodge-switch $(OUT)/bin/lodge-nethelper $(DESTDIR)$(PREFIX)/libexec/lodge/
	install -d $(DESTDIR)$(PREFIX)/share/lodge/UnattendedTemplates
	install -m 644 templates/UnattendedTemplates/* $(DESTDIR)$(PREFIX)/share/lodge/UnattendedTemplates/
	install -m 644 $(OUT)/VBoxGuestAdditions.iso $(DESTDIR)$(PREFIX)/share/lodge/
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	for m in doc/man/*.1; do [ ! -f "$$m" ] || install -m 644 "$$m" $(DESTDIR)$(PREFIX)/share/man/man1/; done
	for c in front/*/completion.bash; do [ ! -f "$$c" ] || install -m 644 "$$c" \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$(case $$c in *vboxmanage*) echo VBoxManage;; *) echo lodge;; esac); done

libs: $(call archives,$(DIRS))
print-fuzz-flags:
	@echo $(call syslibs,$(LAYERS_vm) switch host nethelper)

clean: ## remove everything that was built
	rm -rf $(OUT)

format: ## rewrite the sources as .clang-format says
	clang-format -i $$(git ls-files '*.c' '*.h')

-include $(shell find $(OUT)/obj -name '*.d' 2>/dev/null)
.SECONDARY:
