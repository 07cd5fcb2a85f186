import pytest

from finetune_operator.options import Options, parse

POD = {"POD_NAMESPACE": "sys", "POD_NAME": "operator-0"}


def _parse(*arguments: str) -> Options:
    return parse(["--trainer-image", "trainer:1", *arguments], POD)


def test_all_namespaces_are_watched_unless_some_are_named() -> None:
    assert (_parse().watch_namespaces, _parse("--watch-namespace", "a", "--watch-namespace", "b").watch_namespaces) == (
        (),
        ("a", "b"),
    )


def test_pods_reach_the_progress_endpoint_through_the_service() -> None:
    options = _parse("--service-name", "ops", "--progress-port", "9000")
    assert options.progress_base_url == "https://ops.sys.svc:8443"


def test_defaults_are_the_api_s_own_document() -> None:
    options = _parse("--defaults", '{"s3": {"endpoint": "http://minio:9000"}, "allowCPU": true}')
    assert (options.defaults.s3.endpoint, options.defaults.allow_cpu) == ("http://minio:9000", True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--defaults", '{"s3": {"endpoint": "minio:9000"}}'], "argument --defaults: s3.endpoint: "),
        (["--defaults", '{"policy": {"endpoints": ["http://a"]}}'], "argument --defaults: policy.endpoints.0: "),
        (["--defaults", "{"], "argument --defaults: the document: "),
        (["--http-port", "70000"], "70000 is not a port number"),
        (["--workers", "0"], "0 is not a whole number above 0"),
    ],
)
def test_a_wrong_value_is_named(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parse(*arguments)
    assert sentence in capsys.readouterr().err


def test_the_own_pod_must_be_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--trainer-image", "trainer:1"], {"POD_NAME": "operator-0"})
    assert "POD_NAMESPACE" in capsys.readouterr().err
