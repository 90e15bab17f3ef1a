"""A detector as an HTTP service. Nothing here imports the web framework before it is served."""

from vovnet.serve.limits import Limits as Limits
