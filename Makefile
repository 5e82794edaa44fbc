# One door for developers. Needs make and any Python 3 with venv; the rest makes itself.
# `make run` starts everything; `make test` runs every test; the other targets are listed in README.md.
.PHONY: run test lint type docs bench faults soak setup clean
BIN := .venv/bin

run:
	@sh scripts/bootstrap run
	@TIDEGATE_HOME="$${TIDEGATE_HOME:-.tidegate}" exec $(BIN)/tidegate up --quiet --examples examples

test:
	@sh scripts/bootstrap dev
	@exec $(BIN)/python tests/run.py

lint:
	@sh scripts/bootstrap dev
	@$(BIN)/ruff check && $(BIN)/ruff format --check

type:
	@sh scripts/bootstrap dev
	@exec $(BIN)/mypy

docs:
	@sh scripts/bootstrap dev
	@$(BIN)/python scripts/reference.py && exec $(BIN)/python scripts/faults.py

bench:
	@sh scripts/bootstrap dev
	@exec $(BIN)/python bench/run.py

faults:
	@sh scripts/bootstrap dev
	@exec $(BIN)/python tests/run.py tests/faults tests/security

soak:
	@sh scripts/bootstrap dev
	@TIDEGATE_TEST_SOAK=1 exec $(BIN)/python tests/run.py

setup:
	@sh scripts/bootstrap dev

clean:
	rm -rf .venv .boot .mypy_cache .ruff_cache .hypothesis
