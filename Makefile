# make demo   sets everything up and runs a small version of the main comparison; writes demo/report.html
# make test   sets everything up and runs every check

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Number of pytest processes; each uses one thread.
WORKERS ?= 2

.PHONY: setup demo check test test-quick torture fuzz siege cluster lock audit bench model docs site dist clean

setup: $(READY)

$(READY): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mcss needs Python 3.11 or newer, but this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: setup
	$(BIN)/mcss demo --out demo

# The import contracts are checked by the tests; `.venv/bin/lint-imports` checks them alone.
check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --cov --cov-report=term:skip-covered --doctest-modules src/mcss tests

test-quick: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) -m 'not slow'

# Kills, mangled files and hostile requests; each stops after MINUTES and goes on when it is run again. See docs/reliability.md.
MINUTES ?= 20

torture: setup
	$(BIN)/python -W ignore scripts/torture.py --minutes $(MINUTES)
	$(BIN)/python scripts/write_suites.py

fuzz: setup
	$(BIN)/python -W ignore scripts/fuzz.py --minutes $(MINUTES)
	$(BIN)/python scripts/write_suites.py

siege: setup
	$(BIN)/python -W ignore scripts/siege.py --minutes $(MINUTES)
	$(BIN)/python scripts/write_suites.py

# A training in two processes, and a Ray cluster of two nodes, both on this computer, whose processes are killed.
cluster: setup
	$(BIN)/python -W ignore scripts/ddp_suite.py
	$(BIN)/python -W ignore scripts/ray_suite.py
	$(BIN)/python scripts/write_suites.py

# The versions of all packages that are installed, as constraints.txt; run the tests first.
lock: setup
	$(BIN)/python scripts/write_constraints.py

# Known faults of the pinned packages, from the database of PyPI: needs the network, and is no part of the tests.
audit: setup
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --disable-pip-version-check --quiet pip-audit
	build/audit/bin/pip-audit --no-deps --disable-pip --requirement constraints.txt

# The documentation as a site in build/site; fails on broken links, anchors and references. Its search needs a server:
# python -m http.server -d build/site
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The wheel and the source distribution, checked as PyPI checks them; see docs/releasing.md.
dist: setup
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*

bench: setup
	for benchmark in benchmarks/*.py; do $(BIN)/python $$benchmark || exit 1; done

MODEL := src/mcss/models/mcss.safetensors

# Takes two hours: the weights shipped with the package, see src/mcss/models/CARD.md.
model: setup
	$(BIN)/mcss synthetic build captures/people --subjects 21 --instants 400 --size 256 --stages per-view --cameras per-sequence --no-new-motion --seed 5
	$(BIN)/mcss train mcss --capture captures/people --config scripts/shipped.toml --out runs/people --resume
	$(BIN)/mcss equip runs/people --capture captures/people --stages 6 --half --out $(MODEL)

# Takes hours: every table and image of README.md and docs/, from the commands that make them. Can be stopped and repeated.
docs: setup
	$(BIN)/mcss synthetic build captures/synthetic
	$(BIN)/python scripts/write_coverage.py captures/synthetic docs/synthetic.md
	$(BIN)/mcss doctor captures/synthetic
	$(BIN)/mcss show captures/synthetic -o docs/images/synthetic_contact_sheet.jpg --instants 16 --across 2 --plain
	$(BIN)/mcss show captures/synthetic -o docs/images/show.jpg --split test --instants 6 --across 2
	$(BIN)/mcss experiment --capture captures/synthetic --out results
	$(BIN)/python scripts/write_table.py docs/results.md results results/table.md
	$(BIN)/mcss ablation --capture captures/synthetic --out results/ablation
	$(BIN)/python scripts/write_table.py docs/method.md ablation results/ablation/ablation.md
	$(BIN)/mcss synthetic build captures/other --seed 1 --stages per-subject --instants 1000
	$(BIN)/python scripts/write_mediapipe_landmarks.py captures/synthetic runs/mediapipe.parquet
	$(BIN)/mcss reproduce all --capture captures/synthetic --other captures/other --out docs/results --cells results/cells --processes 2 --landmarks runs/mediapipe.parquet
	$(BIN)/python scripts/write_table.py docs/results.md beyond docs/results/beyond.md
	$(BIN)/python scripts/write_table.py docs/results.md longer docs/results/longer.md
	$(BIN)/python scripts/write_headline.py results/report.json README.md headline
	$(BIN)/python scripts/write_findings.py
	$(BIN)/python scripts/measure_starred.py captures/synthetic
	$(BIN)/python scripts/measure_selection.py captures/synthetic
	$(BIN)/python benchmarks/metrics.py --json docs/results/metrics.json
	$(BIN)/python scripts/fetch_real_clip.py captures/footage --keypoints captures/keypoints --poses
	$(BIN)/mcss import videos captures/footage captures/real
	$(BIN)/python scripts/check_real_crops.py captures/real captures/keypoints
	$(BIN)/python scripts/measure_real_clip.py $(MODEL)
	$(BIN)/python scripts/photograph_overlay.py captures/footage/subject/balancing/cam01.mp4 docs/images/overlay_real.jpg
	$(BIN)/python scripts/measure_search.py
	$(BIN)/python benchmarks/searching.py --page docs/search.md
	$(BIN)/python scripts/measure_prediction.py $(MODEL) captures/synthetic
	$(BIN)/python scripts/photograph_page.py captures/synthetic captures/footage/subject/balancing/cam01.mp4 captures/footage/subject/balancing/cam02.mp4

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .coverage htmlcov build dist
