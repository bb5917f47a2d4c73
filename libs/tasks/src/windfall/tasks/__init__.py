"""What is trained, and on what: model families with their data, and the door for a task of one's own.

``task`` is the door, ``registry`` opens it by name, ``text`` reads a folder of text, ``gpt_neox`` is a language model.
"""
