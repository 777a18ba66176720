"""Settings side by side: what is compared (`axes`), drawn through the host's sampler (`drawing`) and kept between runs
(`kept`), as one labelled picture (`sheet`) and in words (`told`).
"""
