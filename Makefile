# `make demo` and `make test` do everything on a fresh machine; each sets up .venv when it is missing.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# Where cpu-bench finds text; make cpu-bench DATA=FOLDER names another one.
DATA ?= ../shared/data

.PHONY: setup browser demo test test-slow cpu-bench gpu-check docs lint format clean

setup: $(READY)

demo: $(READY)
	$(BIN)/pgolf demo -o out/demo

# A file's tests stay in one process: what they share is made once.
test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: $(READY)
	$(BIN)/python -m pytest -n 2 -m slow

# For the slow tests of the report's page, which are skipped without: Chromium (Debian) and axe-core.
browser:
	command -v chromium || (apt-get update -qq && apt-get install -y -qq chromium)
	npm install --no-save --silent axe-core@4.14.1

# The benchmark model: 27 CPU minutes, the same weights again on the same kind of CPU (one thread).
cpu-bench: $(READY)
	$(BIN)/pgolf data $(DATA)/text/fineweb_train.jsonl $(DATA)/text/c4_en_sample_1000docs.jsonl \
	    $(DATA)/text/fineweb_verify_docs.jsonl --val $(DATA)/text/fineweb_val_head.jsonl \
	    --tokenizer $(DATA)/tokenizers/fineweb_1024_bpe.model -o out/cpu-bench/data
	$(BIN)/pgolf train cpu-bench --data out/cpu-bench/data --val $(DATA)/tokens/fineweb_val_000000.head1M.sp1024.bin \
	    --limit-tokens 262144 --threads 1 -o out/cpu-bench/run

# Whether the NVIDIA card of this machine works, and how fast: under 8 minutes.  Without one a dry run on the CPU.
gpu-check: $(READY)
	$(BIN)/pgolf doctor --gpu -o out/gpu-check

# Every page that a program writes; tests compare them.
docs: $(READY)
	$(BIN)/python -m pgolf.reference > docs/cli.md
	$(BIN)/python -m verify.rules > docs/rules.md
	$(BIN)/pgolf audit --gallery --out docs/gallery.md
	$(BIN)/pgolf audit --gallery --submissions --out docs/gallery_submissions.md
	$(BIN)/python -m tests.test_docs --write
	$(BIN)/python -m tests.test_tutorial --write
	$(BIN)/python -m tests.test_pains --write

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf .venv node_modules out build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
