"""The errors that the gateway answers itself, by subject. Callers write
`errors.body_too_large(limit)`."""

from services.gateway.errors.access import *
from services.gateway.errors.policy import *
from services.gateway.errors.problem import *
from services.gateway.errors.requests import *
from services.gateway.errors.routing import *
from services.gateway.errors.service import *
