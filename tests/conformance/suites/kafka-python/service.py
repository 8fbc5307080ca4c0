"""In place of the tests' own module of this name, which the package leaves out: it starts servers, and here one runs."""


class ExternalService:
    """A server that somebody else started."""

    def __init__(self, host, port):
        self.host, self.port = host, port

    def open(self):
        pass

    def close(self):
        pass


class SpawnedService:
    """A server that the tests start themselves."""

    def __init__(self, *_args, **_keywords):
        raise RuntimeError("these tests use the cluster that runs already")
