import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from moreseek.errors import InputError
from moreseek.records import Message
from moreseek.text import template
from moreseek.text.sandbox import MAX_RENDER_S
from moreseek.text.template import ChatTemplate

USER = Message(role="user", content="<b>é</b>")


def render(source, **variables):
    return ChatTemplate(source).render([USER], **variables)


@pytest.fixture(scope="module")
def soon():
    """A process that stops templates after a fifth of the time that they really have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(template, "_process", template._Process(MAX_RENDER_S / 5))
        yield


def test_a_user_waits_less_than_a_second_for_a_template():
    assert MAX_RENDER_S < 1, "of processor time"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "<b>é</b>"}'),
        ("{% for m in messages %}\n{{ m.role }}\n{% endfor %}", "user\n"),
        ("{% for i in range(5) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "<b>é</b>!"),
        ("{{ bos }}{% if tools %}x{% endif %}", "B"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{{ '-' * 3 }}{{ 7 % 4 }}{{ 'a' | center(3) }}{{ 'b' | indent(2, true) }}", "---3 a   b"),
        ("{{ ['a', 1] | join('-') }}{{ 'aba' | replace('a', 'c') }}{{ 'a-b'.split('-') | join }}", "a-1cbcab"),
        ("{{ 'a' ~ 1 ~ none }}{{ 'x' + 'y' }}{{ '%s!' | format('z') }}{{ '{}?'.format(2) }}", "a1Nonexyz!2?"),
    ],
)
def test_templates_render_as_in_transformers(source, expected):
    assert render(source, bos="B") == expected


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.getpid() }}",
        "{{ self._TemplateReference__context.environment.from_string('x') }}",
        "{{ raise_exception('no') }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 1000000000 * [1] }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ 'a'.center(1000000000) }}",
        "{{ 'a' | center(1000000000) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ [1] | tojson(indent=1000000000) }}",
        "{% for i in range(1000000000) %}{% endfor %}",
        "{% for i in range(9999) %}{% for j in range(9999) %}aaaaaaaaaaaa{% endfor %}{% endfor %}",
        "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='a') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
        "{% set ns = namespace(s='a') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
        "{% set ns = namespace(n=9) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}{{ ns.n }}",
        "{% set s = 'a' * 7000000 %}{{ s.replace('a', s) }}",
        "{% set s = 'a' * 7000000 %}{{ s | replace('a', s) }}",
        "{% set s = 'a' * 7000000 %}{{ ([s] * 7000) | join }}",
        "{% set s = 'a' * 7000000 %}{{ s.join('aaaaa') }}",
        "{{ lipsum(n=100000000) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ ('a b ' * 400000) | urlize }}{{ ('a' * 4000000) | wordwrap(1) }}{{ ('<' * 4000000) | escape }}",
        "{{ 'aaaa'.translate({97: 'a' * 100000000}) }}",
        "{{ ('\\t' * 1000000).expandtabs(1000000) }}",
        "{% for a in range(10 ** 9) | batch(2) %}{% endfor %}",
        "{{ (1, 2) * 400000000 }}",
        "{% set x = [[]] %}{% for i in range(60) %}{% set x = [x, x] %}{% endfor %}{{ x }}{{ 1 / 0 }}",
        "{% set ns = namespace(x=[0]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{{ range(10 ** 8) | list | length }}",
        "{{ range(10 ** 9) | sum }}",
        "{{ dict(a=1) | xmlattr }}{% for a in 'a' * (10 ** 8) %}{% endfor %}",
        "{{ (2 ** 99999999) | string }}",
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "{{ " + "-" * 50000 + "1 }}",
    ],
    ids=lambda source: source[:60],
)
def test_a_hostile_template_is_stopped(source, soon):
    with pytest.raises(InputError, match="chat template"):
        render(source)
    assert render("{{ bos }}", bos="B") == "B", "the next one works"


def test_many_threads_get_each_their_own_text():
    template = ChatTemplate("{{ bos }}")
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda number: template.render([USER], bos=str(number)), range(200)))
    assert texts == [str(number) for number in range(200)]


def test_a_forked_child_renders_for_itself():
    template = ChatTemplate("{{ bos }}")
    child = os.fork()
    if child == 0:
        os._exit(0 if template.render([USER], bos="child") == "child" else 1)
    assert template.render([USER], bos="parent") == "parent"
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("source", ["x" * 100_001, "{{ a }}" * 5_001])
def test_a_template_that_is_too_long_is_refused(source):
    with pytest.raises(InputError, match="at most 100000 and 5000"):
        ChatTemplate(source)


@pytest.mark.parametrize("source", ["{% if %}", "{{ x", "{% include 'file' %}"])
def test_an_invalid_template_is_refused(source):
    with pytest.raises(InputError, match="chat template"):
        render(source)
