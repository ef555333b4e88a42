"""Whether a recipe can be followed by the libraries that it names: vLLM, Unsloth, Accelerate, dashboards."""
