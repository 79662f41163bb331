"""Every benchmark reads its public layout: small files with the columns of the real ones."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from marco_jax.evaluation import benchmarks
from marco_jax.evaluation.benchmarks import DataError


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def jsonl(path, rows):
    write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def only(*arguments, **options):
    found = list(benchmarks.prompts(*arguments, **options))
    assert len(found) == 1
    return found[0]


def test_a_data_directory_is_the_folder_or_holds_it(tmp_path):
    row = {"premise": "我掏空了口袋。", "choice1": "A b。", "choice2": "他。"}
    row |= {"question": "effect", "label": 1}
    jsonl(tmp_path / "xcopa/data/zh/test.zh.jsonl", [row])
    for data_dir in (tmp_path, tmp_path / "xcopa"):
        prompt = only("xcopa", "zh", data_dir, shots=0)
        assert prompt.context == "我掏空了口袋 所以"
        assert (prompt.choices, prompt.options) == ((" a b。", " 他。"), ("a b。", "他。"))
        assert (prompt.gold, prompt.golds) == (1, (1,))


def test_belebeles_own_files(tmp_path):
    row = {"link": "l", "question_number": 1, "flores_passage": "P.", "question": " Q? "}
    row |= {f"mc_answer{n}": f"a{n}" for n in range(1, 5)}
    jsonl(tmp_path / "belebele/data/kaz_Cyrl.jsonl", [row | {"correct_answer_num": "4"}])
    letter = only("belebele", "kk", tmp_path, shots=0)
    assert letter.context == "P.\nQuestion:  Q? \n A. a1\n B. a2\n C. a3\n D. a4\nAnswer:"
    assert letter.choices == (" A", " B", " C", " D")
    assert letter.gold == 3
    harness = only("belebele", "kaz_Cyrl", tmp_path, shots=0, format="harness")
    assert harness.context == "P: P.\nQ: Q?\nA: a1\nB: a2\nC: a3\nD: a4\nAnswer:"
    cloze = only("belebele", "kk", tmp_path, shots=0, format="cloze")
    assert cloze.context == "P.\nQuestion:  Q? \nAnswer:"
    assert cloze.choices == (" a1", " a2", " a3", " a4")


def test_mmlu_with_and_without_a_header(tmp_path):
    for split in ("dev", "test"):
        write(tmp_path / f"mmlu/data/{split}/anatomy_{split}.csv", 'q "x"?,w,x,y,z,B\n')
    plain = only("mmlu", "en", tmp_path, shots=1, part="anatomy")
    with_header = tmp_path / "other"
    for split in ("dev", "test"):
        text = 'question,choice0,choice1,choice2,choice3,answer\n"q ""x""?",w,x,y,z,1\n'
        write(with_header / f"mmlu/{split}/anatomy_{split}.csv", text)
    assert plain.context == only("mmlu", "en", with_header, shots=1, part="anatomy").context
    assert plain.context == (
        "The following are multiple choice questions (with answers) about anatomy.\n\n"
        'q "x"?\nA. w\nB. x\nC. y\nD. z\nAnswer: B\n\n'
        'q "x"?\nA. w\nB. x\nC. y\nD. z\nAnswer:'
    )


def test_hugging_face_folders(tmp_path):
    rows = [
        {"question": "q?", "subject": "anatomy", "choices": ["w", "x", "y", "z"], "answer": 2},
        {"question": "r?", "subject": "virology", "choices": ["w", "x", "y", "z"], "answer": 0},
    ]
    table = pyarrow.Table.from_pylist(rows)
    path = tmp_path / "hub/all/test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(table, path)
    found = list(benchmarks.prompts("mmlu", "en", tmp_path / "hub", shots=0))
    assert [(prompt.part, prompt.gold) for prompt in found] == [("anatomy", 2), ("virology", 0)]

    folder = tmp_path / "saved/anatomy/test"
    folder.mkdir(parents=True)
    stream = pyarrow.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), table.schema)
    with stream as writer:
        writer.write_table(table.slice(0, 1))
    assert only("mmlu", "en", tmp_path / "saved", shots=0).context == found[0].context


def test_openais_mmmlu_draws_shots_from_its_own_test_file(tmp_path):
    lines = [f"{n},q{n}?,w,x,y,z,{'ABCD'[n % 4]},anatomy\n" for n in range(4)]
    text = ",Question,A,B,C,D,Answer,Subject\n" + "".join(lines)
    write(tmp_path / "mmmlu/mmlu_DE-DE.csv", text)
    found = list(benchmarks.prompts("mmmlu", "de", tmp_path, shots=2))
    assert found[0].context.startswith(
        "The following are multiple choice questions (with answers) about anatomy (German).\n\nq1?"
    )
    shown = [[f"q{n}?" in prompt.context for n in range(4)] for prompt in found]
    # First lines of the file, the item itself left out.
    assert shown == [
        [True, True, True, False],
        [True, True, True, False],
        [True, True, True, False],
        [True, True, False, True],
    ]


def test_x_mmlu_c_eval_and_jmmlu(tmp_path):
    row = {"instruction": "q?", "answer": "C", "id": "1"}
    row |= {f"option_{letter}": letter for letter in "abcd"}
    for split in ("train", "test"):
        write(tmp_path / f"xmmlu/ne_{split}.json", json.dumps([row]))
    assert only("xmmlu", "ne", tmp_path, shots=1).context.startswith("q?\nA. a\nB. b")
    header = "id,question,A,B,C,D,answer"
    write(tmp_path / "ceval/val/law_val.csv", f"{header}\n0,问,w,x,y,z,A\n")
    write(tmp_path / "ceval/dev/law_dev.csv", f"{header},explanation\n0,例,w,x,y,z,D,因为\n")
    context = only("ceval", "zh", tmp_path, shots=1).context
    assert context.startswith("以下是中国关于法学的单项选择题，请选出其中的正确答案。\n\n例\nA. w")
    assert "答案： D\n\n问\nA. w" in context
    write(tmp_path / "jmmlu/JMMLU/anatomy.csv", "\ufeff問,w,x,y,z,B\n")
    assert only("jmmlu", "ja", tmp_path, shots=0).context == "問\nA. w\nB. x\nC. y\nD. z\n答え:"


def test_arc_with_three_options_and_numbered_labels(tmp_path):
    choices = [{"text": text, "label": label} for label, text in zip("123", "xyz", strict=True)]
    row = {"id": "1", "question": {"stem": "q?", "choices": choices}, "answerKey": "3"}
    jsonl(tmp_path / "arc/ARC-V1-Feb2018-2/ARC-Challenge/ARC-Challenge-Test.jsonl", [row])
    prompt = only("arc_challenge", "en", tmp_path, shots=0)
    assert (prompt.context, prompt.choices) == ("Question: q?\nAnswer:", (" x", " y", " z"))
    assert prompt.gold == 2


def test_tydiqas_one_file_for_all_languages(tmp_path):
    def question(code, number):
        answers = [{"text": f"a{number}", "answer_start": 0}]
        return {"id": f"{code}-{number}", "question": f"q{number}", "answers": answers}

    questions = [question("swahili", 1), question("bengali", 2)]
    data = {"data": [{"paragraphs": [{"context": "c", "qas": questions}]}]}
    write(tmp_path / "tydiqa_goldp/tydiqa-goldp-v1.1-dev.json", json.dumps(data))
    prompt = only("tydiqa", "sw", tmp_path, shots=0)
    assert prompt.context == "Muktadha: c\n\nSwali: q1\n\nJibu:"
    assert (prompt.references, prompt.stop, prompt.choices) == (("a1",), ("\n",), ())
    assert prompt.gold is None


def test_mlqa_across_languages(tmp_path):
    answers = [{"text": "a", "answer_start": 0}]
    data = {"data": [{"title": "t", "paragraphs": [{"context": "c", "qas": []}]}]}
    data["data"][0]["paragraphs"][0]["qas"] = [{"id": 1, "question": "q", "answers": answers}]
    write(tmp_path / "mlqa/MLQA_V1/test/test-context-en-question-de.json", json.dumps(data))
    assert only("mlqa", "en-de", tmp_path, shots=0).references == ("a",)


def test_mgsms_original_exemplars(tmp_path):
    write(tmp_path / "mgsm/mgsm_en.tsv", 'How "many"?\t1,080\n')
    examples = {"1": {"q": "Question: x?", "a": "Step-by-Step Answer: 2. The answer is 11."}}
    write(tmp_path / "mgsm/exemplars.py", f"# Examples.\nMGSM_EXEMPLARS = {{'en': {examples}}}\n")
    prompt = only("mgsm", "en", tmp_path, shots=1, format="native_cot")
    assert prompt.context == (
        "Question: x?\nStep-by-Step Answer: 2. The answer is 11.\n\n"
        'Question: How "many"?\nStep-by-Step Answer:'
    )
    assert prompt.stop == ("Question:", "</s>", "<|im_end|>")
    direct = only("mgsm", "en", tmp_path, shots=1, format="direct")
    assert direct.context.startswith("Question: x?\nAnswer:11\n\n")


@pytest.fixture
def flores(tmp_path):
    for split in ("dev", "devtest"):
        for code, greeting in (
            ("eng_Latn", "hello"),
            ("kaz_Cyrl", "сәлем"),
            ("jpn_Jpan", "今日は"),
        ):
            lines = [f"{greeting} {split} {n}\n" for n in range(8)]
            write(tmp_path / f"flores200/flores200_dataset/{split}/{code}.{split}", "".join(lines))
    return tmp_path


def test_flores_translates_any_pair(flores):
    found = list(benchmarks.prompts("flores", "kk-ja", flores, shots=1))
    assert len(found) == 8
    shot, asked = found[2].context.split("\n\n")
    assert shot.startswith("Kazakh sentence: сәлем dev ")
    assert "\nJapanese sentence:今日は dev " in shot
    assert asked == "Kazakh sentence: сәлем devtest 2\nJapanese sentence:"
    assert found[2].references == ("今日は devtest 2",)
    into = next(benchmarks.prompts("flores_to_en", "kk", flores, shots=0))
    assert into.references == ("hello devtest 0",)


def test_flores_as_the_authors_ask_shows_all_items_the_same_shots(flores):
    found = list(benchmarks.prompts("flores_from_en", "kk", flores, format="authors"))
    heads = {prompt.context.rpartition("\n\n")[0] for prompt in found}
    assert len(heads) == 1 and heads.pop().count("Please translate") == 5
    assert found[0].context.endswith(
        "Please translate the following text from English to Kazakh:\nhello devtest 0\n"
    )


def test_passages_are_joined_by_id_and_never_by_line(tmp_path):
    jsonl(tmp_path / "eng_Latn.jsonl", [{"id": n, "text": f"e{n}"} for n in range(3)])
    jsonl(tmp_path / "deu_Latn.jsonl", [{"id": n, "text": f"d{n}"} for n in (2, 0, 1)])
    found = benchmarks.prompts("flores_passages", "en-de", tmp_path, shots=0)
    assert [prompt.references for prompt in found] == [("d0",), ("d1",), ("d2",)]
    jsonl(tmp_path / "deu_Latn.jsonl", [{"id": n, "text": f"d{n}"} for n in (2, 0)])
    with pytest.raises(DataError, match=r"eng_Latn.jsonl:2: id 1 is not in .*deu_Latn"):
        list(benchmarks.prompts("flores_passages", "en-de", tmp_path, shots=0))


def test_wmts_sgml_and_the_hubs_parquet_are_the_same(tmp_path):
    for side, text in (("src.de", "Ein &amp; zwei"), ("ref.en", "One &amp; two")):
        sgm = f'<doc>\n<seg id="1">{text}</seg>\n</doc>\n'
        write(tmp_path / f"sgm/wmt16/test/newstest2016-deen-{side}.sgm", sgm)
    row = {"translation": {"de": "Ein & zwei", "en": "One & two"}}
    path = tmp_path / "hub/de-en/test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    prompts = [only("wmt16", "de-en", tmp_path / name, shots=0) for name in ("sgm", "hub")]
    assert prompts[0].context == "German phrase: Ein & zwei\nEnglish phrase:"
    assert (prompts[0].context, prompts[0].references) == (
        prompts[1].context,
        prompts[1].references,
    )


def test_agievals_own_shots(tmp_path):
    row = {"passage": None, "question": "1+1?", "options": ["(A)2", "(B)3"], "label": "A"}
    jsonl(tmp_path / "agieval/data/v1_1/aqua-rat.jsonl", [row])
    sample = repr(row | {"question": "2+2?", "label": "B"}).replace('"', '""')
    write(
        tmp_path / "agieval/data/few_shot_prompts.csv",
        f',aqua-rat\nsample 1,"{sample}"\nexplanation 1,because\n',
    )
    # Five are asked for and one is there.
    assert only("agieval", "en", tmp_path).context == (
        "Here are the answers for the problems in the exam.\n"
        "Problem 1.    2+2?\nChoose from the following options:    (A)2 (B)3\n"
        "The answer is therefore B\n\n"
        "Problem 2.    1+1?\nChoose from the following options:    (A)2 (B)3\n"
        "The answer is therefore"
    )
    without = only("agieval", "en", tmp_path, shots=0)
    assert without.context == (
        "Q: 1+1? Answer Choices: (A)2 (B)3\nA: Among A through B, the answer is"
    )


def test_texts_with_braces_quotes_and_backslashes_survive(tmp_path):
    row = {"premise": "{x} 'a' \"b\" \\n.", "choice1": "{0}", "choice2": "'"}
    jsonl(tmp_path / "val.en.jsonl", [row | {"question": "cause", "label": 0}])
    prompt = only("xcopa", "en", tmp_path, shots=0)
    assert prompt.context == "{x} 'a' \"b\" \\n because"
    assert prompt.options == ("{0}", "'")


def test_a_prepared_tfds_folder(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    tf = pytest.importorskip("tensorflow")
    features = tfds.features.FeaturesDict(
        {
            "sentence1": tfds.features.Text(),
            "sentence2": tfds.features.Text(),
            "label": tfds.features.ClassLabel(num_classes=2),
        }
    )
    folder = tmp_path / "paws_x_wiki/de/1.0.0"
    folder.mkdir(parents=True)
    # Two shards, so that their order shows.
    for shard in range(2):
        path = folder / f"paws_x_wiki-test.tfrecord-{shard:05}-of-00002"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for n in range(10 * shard, 10 * shard + 10):
                row = {"sentence1": f"Satz {n} .", "sentence2": f"Noch {n} .", "label": n % 2}
                writer.write(features.serialize_example(row))
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=[tfds.core.SplitInfo(name="test", shard_lengths=[10, 10], num_bytes=0)],
        filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        check_data=False,
    )
    found = list(benchmarks.prompts("pawsx", "de", tmp_path, shots=0))
    assert [prompt.gold for prompt in found] == [n % 2 for n in range(20)]
    assert [prompt.options[0].split(",")[0] for prompt in found] == [f"Satz {n}" for n in range(20)]
    assert found[3].choices[1] == "Satz 3, richtig? Ja, noch 3."
