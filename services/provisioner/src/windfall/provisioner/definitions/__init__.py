"""The CustomResourceDefinitions, made from the models of :mod:`windfall.contracts.resources`. ``make crds`` writes them
to ``deploy/crds``; a test says when they have drifted."""
