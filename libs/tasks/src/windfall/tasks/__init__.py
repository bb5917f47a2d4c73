"""What is trained, and on what: model families with their data, and the door for a task of one's own.

``task`` is the door and ``registry`` opens it by name. Families: ``gpt_neox`` (``text``, ``tokens``, ``token_files``,
``hub_datasets``), ``resnet`` (``images``, ``crops``), ``gcn`` (``graph``), ``ppo`` (``environments``, ``rollouts``) and
``wav2vec2`` (``speech``, ``contrastive``). They share ``rates`` and ``inner`` (learning-rate schedules, optimizers),
``share`` (which of a folder's samples are a site's own), ``order`` and ``presets``. ``rows`` and ``ranges`` are for a
corpus that sites share, row by row.
"""
