"""Settings side by side: what is compared (`axes`), drawn through the host's sampler (`drawing`), as one labelled
picture (`sheet`) and in words (`told`).
"""
