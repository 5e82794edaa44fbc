"""Which index is used; the indexes are servers of the test with a speed of their own."""

import gevent
import pytest
from gevent.pywsgi import WSGIServer

from tidegate.environments.mirrors import Mirror
from tidegate.settings import Settings


class Index:
    """Answers after ``seconds``; counts how often it was asked."""

    def __init__(self, seconds=0.0, status="200 OK"):
        self.seconds = seconds
        self.status = status
        self.asked = 0
        self.server = WSGIServer(("127.0.0.1", 0), self, log=None)
        self.server.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple/"

    def __call__(self, environ, start_response):
        self.asked += 1
        gevent.sleep(self.seconds)
        start_response(self.status, [("Content-Length", "0"), ("Connection", "close")])
        return [b""]


@pytest.fixture
def index():
    made = []

    def make(**how):
        made.append(Index(**how))
        return made[-1]

    yield make
    for one in made:
        one.server.stop()


def mirror(official, *candidates, detect="true", **more):
    given = {
        "PIP_MIRROR_AUTO_DETECT": detect,
        "PIP_MIRROR_CANDIDATES": ",".join(one.url for one in candidates),
        "PIP_MIRROR_AUTO_DETECT_TIMEOUT": "1",
        **more,
    }
    return Mirror(Settings.load(given), official.url)


def test_nothing_is_asked_unless_it_is_switched_on(index):
    official, candidate = index(), index()
    assert mirror(official, candidate, detect="false").url() == ""
    assert (official.asked, candidate.asked) == (0, 0)


def test_D_37_a_mirror_that_is_named_wins_and_nothing_is_asked(index):
    official, candidate = index(), index()
    named = mirror(official, candidate, PIP_MIRROR_URL="https://named.example/simple")
    assert named.url() == "https://named.example/simple"
    assert candidate.asked == 0


def test_the_fastest_candidate_is_taken_and_asked_once(index):
    official, slow, fast = index(seconds=0.3), index(seconds=0.2), index()
    one = mirror(official, slow, fast)
    assert one.url() == one.url() == fast.url
    assert fast.asked == 1


def test_the_official_index_stays_when_it_is_about_as_fast(index):
    assert mirror(index(), index(seconds=0.2)).url() == ""


@pytest.mark.parametrize("how", [{"status": "500 Broken"}, {"seconds": 2}])
def test_a_candidate_is_taken_when_the_official_index_does_not_answer(index, how):
    candidate = index()
    assert mirror(index(**how), candidate).url() == candidate.url


def test_when_no_candidate_answers_the_official_index_stays(index):
    assert mirror(index(seconds=2), index(status="404 Gone")).url() == ""
