# The commands of the README. `make test` is what CI runs; `make verify` runs every size that is promised.

CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
BIN := $(CARGO_TARGET_DIR)/debug
DATA ?= $(CURDIR)/data
PARTS := seed readme console gcloud serving settings cli secrets functions_api clients clones languages pubsub scheduler eventarc identity hostile faults soak

.PHONY: cuts messages schedules unsynced walls run build test unit e2e verify verify-% lint bench clean-data

## Build, start, deploy the example and call it; stays in the foreground.
run: build
	@PATH="$(BIN):$$PATH" DATA="$(DATA)" examples/run.sh

build: needs
	cargo build --locked -p tanebi

## What CI runs: every table once, ten kills, ten power cuts; a store that does not sync is found out, and so is each wall taken away.
test: lint unit unsynced walls e2e

unit: needs
	cargo test --locked --workspace --exclude e2e
	cargo test --locked -p e2e --test tidy

e2e: build
	cargo test --locked -p e2e --test e2e

## Every size that an issue names. Each part leaves a mark when it has passed; a part with a mark of this commit is not run again.
verify: lint unit build $(addprefix verify-,$(PARTS)) cuts messages schedules walls
	@echo "verified: $$(git rev-parse HEAD)"

verify-%: build
	@mark="$(CARGO_TARGET_DIR)/verified/$$(git rev-parse HEAD)-$$(git status --porcelain | sha256sum | cut -c1-8)-$*"; \
	if [ -e "$$mark" ]; then echo "$* has passed at this commit"; else \
	TANEBI_TIER=full TANEBI_PART=$* cargo test --locked -p e2e --test e2e && mkdir -p "$$(dirname "$$mark")" && touch "$$mark"; fi

## A hundred power cuts.
cuts: needs unsynced
	TANEBI_TIER=full cargo test --locked -p store --test power_cut

## A million messages through a subscription; a thousand lives of the scheduler.
messages: needs
	TANEBI_TIER=full cargo test --locked --config profile.dev.package.events.opt-level=3 -p events --test subscription --test scheduler

## Every zone's changes of clocks, with each of 200 expressions.
schedules: needs
	python3 -m venv "$(CARGO_TARGET_DIR)/croniter" && "$(CARGO_TARGET_DIR)/croniter/bin/pip" install --quiet croniter==7.0.0 tzdata
	PATH="$(CARGO_TARGET_DIR)/croniter/bin:$$PATH" TANEBI_TIER=full cargo test --locked --config profile.dev.package.model.opt-level=3 --config profile.dev.package.jiff.opt-level=3 -p model --test schedule

## The same test on a store that does not sync: it must find losses.
unsynced: needs
	cargo test --locked -p store --features unsafe-no-fsync --test power_cut

## Each wall taken away turns a probe red.
walls: needs
	cargo test --locked -p sandbox --features mutation

lint: needs
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

## Figures of SPECIFICATION.md; needs a release build.
bench:
	cargo build --locked --release -p tanebi
	python3 benches/rest.py
	for language in python nodejs go java; do python3 benches/deploy.py --language $$language; done
	python3 benches/cold.py
	python3 benches/router.py
	python3 benches/overload.py
	python3 benches/storage.py
	python3 benches/finalized.py
	python3 -m venv "$(CARGO_TARGET_DIR)/pubsub" && "$(CARGO_TARGET_DIR)/pubsub/bin/pip" install --quiet -r tests/clients/requirements.txt
	"$(CARGO_TARGET_DIR)/pubsub/bin/python" benches/pubsub.py

needs:
	@command -v cargo >/dev/null || { echo "Rust is missing. Install it: https://rustup.rs"; exit 1; }
	@command -v npm >/dev/null || { echo "npm is missing (the protos of Google's APIs are an npm package). Install it: apt-get install npm"; exit 1; }
	@command -v cc >/dev/null || { echo "a C compiler is missing (SQLite and the TLS library are built with it). Install it: apt-get install gcc"; exit 1; }

clean-data:
	rm -rf "$(DATA)"

.PHONY: needs
