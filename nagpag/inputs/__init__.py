"""Everything that can be set, in one table: what it is called, its default, what is valid, what turning it does.

`guidance`, `comparison`, `diagnostics` and `calibration` have the nodes, `presets` settings under a name, `requests`
what HTTP and the command line ask beside them; `kinds` says what a description is. The nodes, the request models, the
OpenAPI document and the options of the command line are made from it; the help, the translations and docs/inputs.md
are held to it. May import the standard library, `schedule` and `blocks`.
"""
