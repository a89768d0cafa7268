# Works from a fresh clone; `make help` says what there is.
# PYTHON=... chooses the Python that .venv is made with, ARGS=... is handed on.
SHELL := /bin/sh
RUN := .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help book full serve test record notebooks bench clean

help: ## show these lines
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 18

book: install ## execute every page at quick scale, build the site into _build/html
	@$(RUN) tools/book.py $(ARGS)

full: install ## the same at full scale: wants a GPU and the full data sets
	@GV_SCALE=full $(RUN) tools/book.py $(ARGS)

serve: book ## build the site and show it at http://127.0.0.1:8000 (PORT=... for another)
	@$(RUN) -m http.server --bind 127.0.0.1 --directory _build/html $(or $(PORT),8000)

test: install-tests ## install what the tests need and run all of them (ARGS="-k data")
	@$(RUN) -m pytest $(ARGS)

record: install ## write the verdicts of a run into data/evidence (ARGS="--help")
	@$(RUN) tools/record.py $(ARGS)

notebooks: install ## write notebooks/ anew from the pages in chapters/
	@$(RUN) tools/notebooks.py

bench: install-tests ## measure gvlib against plain ways to do the same (benchmarks/results)
	@for name in benchmarks benchmarks.landscape benchmarks.live; do \
	  $(RUN) -m $$name $(ARGS) || exit 1; done

clean: ## remove what was built (_build); .venv and downloaded data stay
	@rm -rf _build build ./*.egg-info

.PHONY: install install-tests
install:
	@sh tools/python tools/install.py

install-tests:
	@sh tools/python tools/install.py --tests
