"""A librarian who has read the standard library's documentation and answers questions about it.

    python examples/quickstart.py dev
    python examples/quickstart.py submit reading-room --metadata "how do I parse dates?"

Reading takes a second or two, so it is done once, in ``preload_fnc``: every
worker shares what was read. Each question is a job in a process of its own: its
room says who asks, its metadata what. A narrow question takes milliseconds, a
broad one a second or two; an empty one fails, and only that job does.

The model is small and real: TF-IDF finds the sentences that share words with
the question, and LexRank picks the one that is like the question and like what
else was found. Source: Otterbacher, Erkan and Radev, "Using Random Walks for
Question-focused Sentence Retrieval", 2005.
"""

from __future__ import annotations

import ast
import logging
import math
import re
import sysconfig
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from supervisor import AgentServer, JobContext, JobProcess, JobRequest, cli

logger = logging.getLogger("librarian")

# Modules of every Python from 3.10 on, chosen for their long docstrings.
SHELF = tuple(
    """
    _pydecimal _pydatetime argparse ast asyncio.base_events asyncio.events asyncio.locks
    asyncio.queues asyncio.streams asyncio.subprocess asyncio.tasks base64 bisect calendar
    cmd codecs collections concurrent.futures._base concurrent.futures.process configparser
    contextlib copy csv dataclasses datetime difflib dis doctest
    email.header email.headerregistry email.message email.policy email.utils enum filecmp
    fileinput fnmatch fractions ftplib functools getopt glob gzip hashlib heapq hmac
    html.parser http.client http.cookiejar http.cookies http.server imaplib importlib.abc
    importlib.metadata importlib.resources inspect io ipaddress json json.decoder json.encoder
    locale logging logging.config logging.handlers lzma mailbox mimetypes multiprocessing.pool
    netrc numbers opcode operator optparse os pathlib pdb pickle pickletools pkgutil platform
    plistlib poplib pprint profile pstats pyclbr pydoc queue random re reprlib runpy sched
    secrets selectors shelve shlex shutil signal smtplib socket socketserver sqlite3.dump ssl
    stat statistics string subprocess symtable sysconfig tabnanny tarfile tempfile
    textwrap threading timeit token tokenize trace traceback tracemalloc turtle types typing
    unittest.case unittest.loader unittest.main unittest.mock unittest.runner urllib.error
    urllib.parse urllib.request urllib.robotparser uuid warnings wave weakref webbrowser
    wsgiref.simple_server wsgiref.util xml.dom.minidom xml.etree.ElementTree xml.sax.handler
    xmlrpc.client xmlrpc.server zipapp zipfile zipimport
    """.split()
)

# Sentences that are compared each with each: 1,200 are 720,000 comparisons, which
# takes a second or so.
MOST_SENTENCES = 1200

# Two sentences under this cosine count as unlike. Source: as above, like the
# share of a sentence's weight that the question decides; the rest the others decide.
SIMILAR = 0.2
QUESTION_SHARE = 0.9
ROUNDS = 10

STOP_WORDS = frozenset(
    """
    a about all an and any are as at be been but by can do does for from get had has have how i
    if in into is it its may me my no not of on one or other our should so such than that the
    their them then there these they this to use used using was we what when where which who why
    will with you your
    """.split()
)

Vector = Mapping[str, float]


# ── the model ────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Sentence:
    """One sentence of the documentation: whose it is, and its TF-IDF vector of length 1."""

    source: str
    text: str
    vector: Vector


@dataclass(frozen=True)
class Library:
    """Everything that was read, and in how many sentences each word is rare."""

    sentences: tuple[Sentence, ...]
    rarity: Vector


@dataclass(frozen=True)
class Reply:
    """An answer: the sentence that says it best, whose it is, and how many were compared."""

    text: str
    source: str
    compared: int


def words(text: str) -> list[str]:
    """Return the words that carry meaning: CamelCase taken apart, lower case, no plural's s."""
    found = (word.lower() for word in re.findall(r"[A-Z]?[a-z][a-z0-9]+|[A-Z]{2,}", text))
    stems = (w[:-1] if len(w) > 3 and w.endswith("s") and w[-2] not in "su" else w for w in found)
    return [stem for stem in stems if stem not in STOP_WORDS]


def docstrings(module: str) -> Iterator[tuple[str, str]]:
    """Read a module's source and yield the name and the docstring of all that has one.

    Nothing is imported. A module that this Python has not yields nothing.
    """
    path = Path(sysconfig.get_path("stdlib"), *module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_name(f"{path.name}.py")
    if not path.exists():
        return
    with tokenize.open(str(path)) as file:
        tree = ast.parse(file.read())
    if text := ast.get_docstring(tree):
        yield module, text
    yield from _inside(tree, module)


def _inside(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            name = f"{prefix}.{child.name}"
            if text := ast.get_docstring(child):
                yield name, text
            if isinstance(child, ast.ClassDef):
                yield from _inside(child, name)


def sentences(text: str) -> Iterator[str]:
    """Yield the prose sentences of a docstring; examples, tables and single words are left out."""
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.startswith((" ", "\t")) or re.search(r">>>|[|*_=+-]{2}", paragraph):
            continue
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split())):
            if len(sentence.split()) >= 4:
                yield sentence


def unit_vector(counts: Mapping[str, int], rarity: Vector) -> dict[str, float]:
    """Return the TF-IDF weights of the words that are known, scaled to length 1."""
    weights = {word: n * rarity[word] for word, n in counts.items() if word in rarity}
    length = math.sqrt(sum(weight * weight for weight in weights.values()))
    return {word: weight / length for word, weight in weights.items()} if length else {}


def similarity(a: Vector, b: Vector) -> float:
    """Return the cosine of two vectors of length 1: 0.0 nothing in common, 1.0 the same words."""
    if len(b) < len(a):
        a, b = b, a
    return sum(weight * b[word] for word, weight in a.items() if word in b)


def read(modules: Iterable[str] = SHELF) -> Library:
    """Read the modules' documentation and return the model. Takes a second or two."""
    found: dict[str, tuple[str, Counter[str]]] = {}  # by text: inherited docstrings say it twice
    for module in modules:
        for source, text in docstrings(module):
            for sentence in sentences(text):
                if sentence not in found and (said := words(sentence)):
                    # The name counts as said: "Return a new one." alone tells little.
                    found[sentence] = (source, Counter(said + words(source)))
    seen = Counter(word for _, counts in found.values() for word in counts)
    rarity = {word: 1.0 + math.log(len(found) / n) for word, n in seen.items()}
    return Library(
        tuple(
            Sentence(source, text, unit_vector(counts, rarity))
            for text, (source, counts) in found.items()
        ),
        rarity,
    )


def lex_rank(candidates: Sequence[Sentence], relevance: Sequence[float]) -> list[float]:
    """Return how well each sentence answers: by its own relevance and by that of its likes.

    Compares each with each, so twice as many take four times as long.

    Args:
        candidates: what was found.
        relevance: how much each is like the question, over 0.
    """
    links: list[list[tuple[int, float]]] = [[] for _ in candidates]
    for i, one in enumerate(candidates):
        for j in range(i):
            alike = similarity(one.vector, candidates[j].vector)
            if alike >= SIMILAR:
                links[i].append((j, alike))
                links[j].append((i, alike))
    totals = [sum(alike for _, alike in row) for row in links]
    all_relevance = sum(relevance)
    asked = [QUESTION_SHARE * each / all_relevance for each in relevance]
    weights = asked
    for _ in range(ROUNDS):
        weights = [
            mine + (1 - QUESTION_SHARE) * sum(weights[j] * alike / totals[j] for j, alike in row)
            for mine, row in zip(asked, links, strict=True)
        ]
    return weights


def answer(library: Library, question: str) -> Reply:
    """Return the sentence that answers *question* best: like it, and like what else is said of it.

    Raises:
        ValueError: the question is empty, or consists of words like "the".
        LookupError: the library knows none of its words.
    """
    asked = Counter(words(question))
    if not asked:
        raise ValueError(f"expected a question with a word to look up, got {question!r}")
    query = unit_vector(asked, library.rarity)
    if not query:
        raise LookupError(f"nothing on the shelf mentions {' or '.join(sorted(asked))}")
    scored = [(similarity(query, each.vector), each) for each in library.sentences]
    hits = sorted((hit for hit in scored if hit[0] > 0), key=lambda hit: -hit[0])[:MOST_SENTENCES]
    found = [sentence for _, sentence in hits]
    weights = lex_rank(found, [relevance for relevance, _ in hits])
    best = found[weights.index(max(weights))]
    return Reply(best.text, best.source, compared=len(hits))


# ── the server ───────────────────────────────────────────────────────────────


def open_library(proc: JobProcess) -> None:
    """Read everything once, in the fork server; the workers share it."""
    proc.userdata["library"] = read()


async def open_to_all(request: JobRequest) -> None:
    """Accept every reader, under the librarian's name."""
    await request.accept(name="librarian", attributes={"reader": request.room.name})


server = AgentServer(
    preload_fnc=open_library,
    num_idle_processes=4,
    load_threshold=math.inf,  # an answer uses a whole CPU: load says nothing about the next one
    drain_timeout=10,
)


@server.rtc_session(agent_name="librarian", on_request=open_to_all)
async def entrypoint(ctx: JobContext) -> None:
    """Answer the question in the job's metadata."""
    await ctx.connect()
    reply = answer(ctx.proc.userdata["library"], ctx.job.metadata)
    logger.info("best of %d sentences: %s: %s", reply.compared, reply.source, reply.text)


if __name__ == "__main__":
    cli.run_app(server)
