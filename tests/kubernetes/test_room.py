"""Whether a form fits the nodes; no cluster is asked."""

from tests.infra.manifests import build
from tests.kubernetes.room import asked_by, too_little


def test_pods_fit_where_each_finds_a_node() -> None:
    assert not too_little([500, 1500, 1000], [1500, 1500])
    assert not too_little([], [])
    assert "one of 2 has no room on nodes with [1.5, 1.5]" in too_little([2000], [1500, 1500])
    assert "ask for 3.2 CPUs" in too_little([1500, 1500, 200], [1500, 1500])
    assert too_little([1], [])


def test_the_forms_ask_for_what_their_manifests_say() -> None:
    assert asked_by(build("k8s")) == [750]
    # Redis; head with autoscaler, live market, learner; env runners come later.
    assert sorted(asked_by(build("kuberay/overlays/cpu-only"))) == [100, 1200, 2000, 2000]
    assert sorted(asked_by(build("kuberay/overlays/service-cpu-only"))) == [100, 1200, 2000, 2000]
