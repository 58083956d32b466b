# make demo       install, run the main job on the embedded tiny world, print the table and the report's path
# make test       install, run all tests, then the hosts' subset on transformers 4.37.2 in an environment of its own
# make test-legacy  that subset alone
# make matrix     that subset on every version of VERSIONS and every Python of PYTHONS, each in an environment of its own; writes the table of docs/hosts.md
# make test-fast  the tests that train nothing and take no seconds each, with fewer random examples (two minutes)
# make docs     build the site under build/site; a warning or a broken link is an error (seconds)
# make test-browser  the pages in a real browser: the system's chromium, or one that is fetched (a minute or two); PICTURES=docs/pictures makes the docs' pictures anew
# make lint     ruff and mypy, as pyproject.toml sets them (seconds)
# make mutate   changes formulas and thresholds one by one and says what no test notices (docs/mutation.md; half an hour)
# make test-kill  SIGKILL at 40 random instants, one and two ranks; the pairs must come out the same (make test kills 4 times); each stage; 1, 2, 4 ranks in turn
# make test-zero  the long form of the DeepSpeed tests: 1, 2 and 4 ranks, accumulation, checkpointing, deaths
# make bench      every benchmark on this machine; JSON under benchmarks/results
# make rehearsal  README's commands on random weights of true shapes, by hand (up to an hour, 20 GiB of memory and 30 GB of disk a shape); SHAPES="llava-1.5-7b"
# make reproduce  train and measure every model of examples/tiny_world/reproduce/plan.py that is not in results/ yet (hours; go on any time)
# make reproduce-quick  one seed of the main result anew, nothing committed is read (under 25 minutes on two quiet cores)
# make reproduce-tune  the settings tried on validation scenes
# make agreement FERRET=DIR  what Ferret's own evaluators, in a checkout of apple/ml-ferret, say of 2,000 made-up answers
# make clean      remove the environments and everything that was built
PYTHON ?= python3
VENV := .venv
LEGACY := .venv-4.37.2
# With constraints/transformers-VERSION.txt, or of the primary environment.
VERSIONS ?= 4.37.2 4.46.3 4.57.6 5.23.0
NEWEST := 5.23.0
# The oldest and the newest that setup.cfg promises, each with the newest transformers that it has.
PYTHONS ?= 3.10 3.13
# transformers 4.37.2 has no build for later Pythons.
HAS_LEGACY = $(shell $(VENV)/bin/python -c 'import sys; print("yes" if sys.version_info < (3, 13) else "")')
# Evaluated where something is installed. In words that Python 2 knows.
NOT_OURS = $(shell { $(PYTHON) -c 'import sys; print("" if (3, 10) <= sys.version_info[:2] <= (3, 13) else sys.version.split()[0])' || echo no Python that starts; } 2>/dev/null)
REFUSE_OTHER = $(if $(NOT_OURS),$(error this needs Python 3.10 to 3.13, and $(PYTHON) is $(NOT_OURS): make … PYTHON=python3.11))
# Two workers; a file's tests share its fixtures, so that they stay on one worker.
PYTEST_ARGS ?= -n 2 --dist loadfile -q
# One thread a process: tiny models gain nothing from more, and torchrun's ranks would fight for the cores.
export OMP_NUM_THREADS ?= 1
# Compiling the tests and the package anew takes a third of a start, and tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

PACKAGE := setup.cfg pyproject.toml $(wildcard _build/*)
PRIMARY_WANTS := -e .[eval,dpo,report,inspect,server,docs,dev,deepspeed]
LEGACY_WANTS := torch transformers accelerate peft einops sentencepiece protobuf requests pytest pytest-timeout pytest-xdist hypothesis -e .

.PHONY: demo docs lint mutate test test-browser browser test-fast test-legacy test-kill test-zero bench rehearsal reproduce reproduce-quick reproduce-tune agreement matrix clean
.PRECIOUS: .venv-%/.installed .venv-py%/.installed
demo: $(VENV)/.installed
	$(VENV)/bin/spr demo

test: lint
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)
	$(if $(HAS_LEGACY),$(MAKE) test-legacy,@echo "transformers 4.37.2 has no build for this Python: make test-legacy is left out")

mutate: $(VENV)/.installed
	$(VENV)/bin/python tests/mutate.py $(MODULES)

# The variable quiets an advertisement of the theme.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build

lint: $(VENV)/.installed
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy

test-browser: browser
	SPR_PICTURES="$(PICTURES)" $(VENV)/bin/python -m pytest -q tests/browser

# One that starts: the system's, or, where there is none, one that is fetched now.
browser: $(VENV)/.playwright
	$(VENV)/bin/python tests/browser/chromium.py

test-legacy: $(LEGACY)/.installed
	$(LEGACY)/bin/python -m pytest $(PYTEST_ARGS) -m legacy

test-fast: $(VENV)/.installed
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS) -m "not slow" --hypothesis-profile fast

test-kill: $(VENV)/.installed
	SPR_KILLS=40 $(VENV)/bin/python -m pytest -q -s -m slow tests/hosts/test_kills.py tests/hosts/test_faults.py

test-zero: $(VENV)/.installed
	$(VENV)/bin/python -m pytest -q tests/dpo/campaign_zero.py

bench: $(VENV)/.installed
	for name in scoring startup dpo_step forecast hostile_text; do $(VENV)/bin/python benchmarks/$$name.py --json benchmarks/results/$$name.json || exit; done
	$(VENV)/bin/python benchmarks/sampling.py --parts tiny large ranks --json benchmarks/results/sampling.json
	$(VENV)/bin/python benchmarks/zero3_sampling.py --json benchmarks/results/zero3_sampling.json
	$(VENV)/bin/python benchmarks/annotations.py --whole --json benchmarks/results/annotations.json
	$(VENV)/bin/python benchmarks/store.py --json benchmarks/results/store.json
	$(VENV)/bin/python benchmarks/recipes.py --json benchmarks/results/recipes.json
	$(VENV)/bin/python benchmarks/inspecting.py --json benchmarks/results/inspecting.json
	$(VENV)/bin/python benchmarks/evaluation.py --json benchmarks/results/evaluation.json

# All cores: nothing else runs beside these products of matrices.
rehearsal: $(VENV)/.installed
	OMP_NUM_THREADS=$$(nproc) $(VENV)/bin/python benchmarks/rehearsal/run.py $(if $(SHAPES),--shapes $(SHAPES)) --json benchmarks/results/rehearsal.json
	$(VENV)/bin/python docs/generate.py

reproduce: $(VENV)/.installed
	for plan in full scaled; do $(VENV)/bin/python examples/tiny_world/reproduce/run.py $$plan || exit; done
	$(VENV)/bin/python docs/generate.py

reproduce-quick: $(VENV)/.installed
	$(VENV)/bin/python examples/tiny_world/reproduce/run.py quick --out reproduction/quick --results reproduction/quick/results

reproduce-tune: $(VENV)/.installed
	for plan in tune demo method; do $(VENV)/bin/python examples/tiny_world/reproduce/run.py $$plan || exit; done

agreement: $(VENV)/.installed
	@test -n "$(FERRET)" || { echo "make agreement: say where ml-ferret is checked out, FERRET=DIR"; exit 2; }
	$(VENV)/bin/python tests/eval_tasks/ferret_agreement.py "$(FERRET)"

# setuptools comes first, from the same pins, so that our own build needs no second environment.
# lmms-eval and llava-torch pin releases that exclude each other: installed without their dependencies.
define primary
	test -x $(@D)/bin/python || $(1) -m venv $(@D)
	$(@D)/bin/python -m pip install -q -c $< setuptools wheel
	$(@D)/bin/python -m pip install -q -c $< $(PRIMARY_WANTS) --no-build-isolation
	$(@D)/bin/python -m pip install -q -c $< --no-deps lmms-eval llava-torch
	touch $@
endef
$(VENV)/.playwright: $(VENV)/.installed
	$(VENV)/bin/python -m pip install -q -c constraints/primary.txt -e .[browser] --no-build-isolation
	touch $@

$(VENV)/.installed: constraints/primary.txt $(PACKAGE)
	$(REFUSE_OTHER)$(call primary,$(PYTHON))

.venv-py%/.installed: constraints/primary.txt $(PACKAGE)
	$(call primary,python$*)

.venv-%/.installed: constraints/transformers-%.txt constraints/common.txt $(PACKAGE)
	$(REFUSE_OTHER)test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install -q -c $< setuptools wheel
	$(@D)/bin/python -m pip install -q -c $< $(LEGACY_WANTS) --no-build-isolation
	$(@D)/bin/python -m pip install -q -c $< --no-deps llava-torch
	touch $@

# A version whose tests fail gets its crosses, and the others run all the same.
OF_VERSION = $(if $(filter $(NEWEST),$(1)),$(VENV),.venv-$(1))/results.xml
matrix: $(foreach v,$(VERSIONS),$(call OF_VERSION,$(v))) $(PYTHONS:%=.venv-py%/results.xml)
	$(PYTHON) tests/matrix.py $(foreach v,$(VERSIONS),$(call OF_VERSION,$(v))) $(PYTHONS:%=.venv-py%/results.xml)

.PHONY: FORCE
%/results.xml: %/.installed FORCE
	-$*/bin/python -m pytest $(PYTEST_ARGS) -m legacy --junitxml $@

clean:
	rm -rf $(VENV) .venv-* demo reproduction build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
