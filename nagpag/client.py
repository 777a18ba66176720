"""The Python client under its short name: `from nagpag.client import Client`. It lives in `service/client`."""

from .service.client import BadRequest, Client, Image, JobFailed, NoServer, Result, ServiceError

__all__ = ["BadRequest", "Client", "Image", "JobFailed", "NoServer", "Result", "ServiceError"]
