"""Side, view and unusual images: from standard tags, habits of vendors and archives, and the pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from monai.transforms import Compose
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from pipeline.imaging import (
    ApplyWindowd,
    CropToBreastd,
    OrientChestWalld,
    ReadMammogramd,
    Refusal,
    ResizeImaged,
    SegmentBreastd,
    chain_digest,
    chain_from_description,
    describe_chain,
    prepare_item,
    read_mammogram,
)
from pipeline.imaging.facts import VIEW_MODIFIERS, view_modifiers
from pipeline.imaging.habits import PREFIXES, SUFFIXES, VIEWS, read_wording
from pipeline.imaging.special import CODES, MEANINGS, MODIFIERS, Special, special_kinds

from .scenes import breast_scene, mammogram_dataset, write_dicom, write_png

STORED = np.rint(breast_scene(60, 50) * 4000).astype(np.uint16)
BARE = {"ImageLaterality": None, "ViewPosition": None}


def _private(path: Path, creator: str, group: int, element: int, value: str, **tags: object) -> Path:
    dataset = mammogram_dataset(STORED, **tags)
    dataset.private_block(group, creator, create=True).add_new(element, "LO", value)
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    ("text", "side", "view", "modifiers"),
    [
        ("MLO", None, "MLO", ()),
        ("RMLO", "R", "MLO", ()),
        ("LM", None, "LM", ()),
        ("LML", "L", "ML", ()),
        ("LMO", None, "LMO", ()),
        ("LMLO", "L", "MLO", ()),
        ("RMCC", "R", "CC", ("magnification",)),
        ("MLOID", None, "MLO", ("implant displaced",)),
        ("SISO", None, "ISO", ("spot compression",)),
        ("l cc", "L", "CC", ()),
        ("RIGHT-MLO spot", "R", "MLO", ("spot compression",)),
        ("MAMMO, L MLO", "L", "MLO", ()),
        ("cranio-caudal", None, "CC", ()),
        ("Medio-Lateral Oblique", None, "MLO", ()),
        ("CC MLO", None, None, ()),
        ("LCC RMLO", None, None, ()),
        ("PREMIUM_VIEW", None, None, ()),
        ("", None, None, ()),
    ],
)
def test_wordings_of_side_and_view_are_read(text: str, side: str, view: str, modifiers: tuple) -> None:
    wording = read_wording(text, "tag")
    assert (wording.side, wording.view, wording.modifiers) == (side, view, modifiers)


@given(
    side=st.sampled_from(["", "L", "R"]),
    prefix=st.sampled_from(["", *PREFIXES]),
    view=st.sampled_from(VIEWS),
    suffix=st.sampled_from(["", *SUFFIXES]),
)
def test_every_abbreviation_of_the_acr_says_one_view(side: str, prefix: str, view: str, suffix: str) -> None:
    wording = read_wording(side + prefix + view + suffix, "tag")
    assert (wording.side, wording.view) == (side or None, view) or side + prefix + view + suffix in (
        "LMO" + suffix,  # a latero-medial oblique, no left one
        "LM" + suffix,
    )
    assert set(wording.modifiers) <= set(MODIFIERS) | set(SUFFIXES.values()) | set(PREFIXES.values())


@given(st.text(max_size=64))
def test_no_text_breaks_the_reading_of_wordings(text: str) -> None:
    wording = read_wording(text, "tag")
    assert wording.side in (None, "L", "R") and wording.view in (None, *VIEWS)


@pytest.mark.parametrize(
    ("tags", "expected", "sources"),
    [
        ({"ImageLaterality": None, "ViewPosition": "RCC"}, ("R", "CC"), ("ViewPosition", "ViewPosition")),
        (
            BARE | {"AcquisitionDeviceProcessingDescription": "L MLO"},
            ("L", "MLO"),
            ("AcquisitionDeviceProcessingDescription (as of Fujifilm)",) * 2,
        ),
        (
            BARE | {"PatientID": "Mass-Test_P_00173_LEFT_CC"},
            ("L", "CC"),
            ("PatientID (as in CBIS-DDSM)",) * 2,
        ),
        (
            BARE | {"PatientID": "Calc-Training_P_00005_RIGHT_MLO_1", "Laterality": "R", "PatientOrientation": "MLO"},
            ("R", "MLO"),
            ("Laterality", "PatientOrientation (holds the view, as in CBIS-DDSM)"),
        ),
    ],
)
def test_habits_of_archives_fill_gaps_and_are_named(tmp_path: Path, tags: dict, expected, sources) -> None:
    mammogram = read_mammogram(write_dicom(tmp_path / "a.dcm", STORED, **tags))
    assert (mammogram.laterality, mammogram.view) == expected
    assert (mammogram.provenance["laterality"], mammogram.provenance["view"]) == sources


@pytest.mark.parametrize(
    ("creator", "group", "element", "value"),
    [("GEMS_SENO_02", 0x45, 0x1B, "RMLO"), ("SIEMENS MED SP DXMG WH AWS 1", 0x55, 0x01, "R-MLO")],
)
def test_private_tags_fill_gaps_and_never_overrule(tmp_path: Path, creator, group, element, value) -> None:
    alone = read_mammogram(_private(tmp_path / "a.dcm", creator, group, element, value, **BARE))
    assert (alone.laterality, alone.view) == ("R", "MLO")
    assert f"({group:04X},xx{element:02X})" in alone.provenance["view"]
    beside = read_mammogram(_private(tmp_path / "b.dcm", creator, group, element, value))
    assert (beside.laterality, beside.view) == ("L", "CC")  # the standard's tags
    assert beside.provenance["laterality"].startswith("ImageLaterality; ")
    assert all(beside.provenance[fact].endswith(" disagrees") for fact in ("laterality", "view"))


@pytest.mark.parametrize("value", ["GEMS_FFDM_PV", "Doe^Jane", "L", "100"])
def test_other_words_in_the_processing_description_say_nothing(tmp_path: Path, value: str) -> None:
    path = write_dicom(tmp_path / "a.dcm", STORED, **BARE, AcquisitionDeviceProcessingDescription=value)
    with pytest.raises(Refusal, match="unknown_view"):
        read_mammogram(path)


@pytest.mark.parametrize(
    ("tags", "given_", "code", "believed"),
    [
        ({"Laterality": "R"}, {}, "side_conflict", ("laterality", "ImageLaterality; Laterality disagrees")),
        ({}, {"laterality": "R"}, "side_conflict", ("laterality", "ImageLaterality; manifest disagrees")),
        ({}, {"view": "MLO"}, "view_conflict", ("view", "ViewPosition; manifest disagrees")),
        ({"PatientOrientation": "MLO"}, {}, "view_conflict", ("view", "ViewPosition; PatientOrientation (holds")),
        ({"ViewPosition": "RCC"}, {}, "side_conflict", ("laterality", "ImageLaterality; ViewPosition disagrees")),
    ],
)
def test_conflicts_are_refused_or_flagged_by_policy(tmp_path: Path, tags: dict, given_: dict, code, believed) -> None:
    path = write_dicom(tmp_path / "a.dcm", STORED, **tags)
    with pytest.raises(Refusal, match=code):
        read_mammogram(path, **given_)
    mammogram = read_mammogram(path, **given_, conflicts="flag")
    assert (mammogram.laterality, mammogram.view) == ("L", "CC")
    assert mammogram.provenance[believed[0]].startswith(believed[1])


def test_patient_orientation_of_an_oblique_view_is_only_flagged(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STORED, ViewPosition="MLO", PatientOrientation=["P", "FL"])
    assert read_mammogram(path).provenance["laterality"] == "ImageLaterality; PatientOrientation disagrees"


def test_modifiers_are_those_of_the_standard() -> None:
    listed = [getattr(codes.cid4015, name) for name in codes.cid4015.dir()]
    meanings = {code.value: code.meaning for code in listed}
    assert {code: name for code, name in VIEW_MODIFIERS.items() if code in meanings} == {
        code: meaning.lower() for code, meaning in meanings.items()
    }


def _modified(value: str) -> list[Dataset]:
    item, modifier = Dataset(), Dataset()
    item.CodeValue, modifier.CodeValue = "399162004", value
    item.ViewModifierCodeSequence = [modifier]
    return [item]


def _coded(value: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue = value
    return [item]


UNUSUAL = [
    ("spot_compression", {"ViewCodeSequence": _modified("399055006")}),
    ("spot_compression", {"ViewPosition": "CC SPOT"}),
    ("spot_compression", {"PaddleDescription": "SPOT CONTACT"}),
    ("magnification", {"ViewCodeSequence": _modified("R-102D6")}),
    ("magnification", {"EstimatedRadiographicMagnificationFactor": "1.8"}),
    ("magnification", {"ViewPosition": "MCC"}),
    ("magnification", {"PaddleDescription": "10CM_MAG"}),
    ("magnification", {"PaddleDescription": "Magnification 1.8"}),
    ("partial_view", {"ViewCodeSequence": _modified("399011000")}),
    ("implant_displaced", {"ViewCodeSequence": _modified("399209000")}),
    ("implant_displaced", {"ViewPosition": "CCID"}),
    ("implant", {"BreastImplantPresent": "YES"}),
    ("localizer", {"ImageType": ["ORIGINAL", "PRIMARY", "STEREO_SCOUT"]}),
    ("localizer", {"ImageType": ["ORIGINAL", "PRIMARY", "POSTFIRE_MINUS"]}),
    ("contrast", {"ImageType": ["DERIVED", "PRIMARY", "", "RECOMBINED"]}),
    ("contrast", {"ImageType": ["DERIVED", "PRIMARY", "POST_CONTRAST", "SUBTRACTION"]}),
    ("synthetic", {"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]}),
    ("tomosynthesis", {"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"]}),
    ("tomosynthesis", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.13.1.3"}),
    ("region", {"SeriesDescription": "ROI mask images"}),
    ("region", {"SeriesDescription": "cropped images"}),
    ("specimen", {"ViewCodeSequence": _coded("127457009")}),
    ("quality_control", {"QualityControlImage": "YES"}),
    ("quality_control", {"BodyPartExamined": "PHANTOM"}),
]


@pytest.mark.parametrize(("kind", "tags"), UNUSUAL)
def test_unusual_images_are_recognised_and_refused_or_kept_by_policy(tmp_path: Path, kind: str, tags: dict) -> None:
    path = write_dicom(tmp_path / "a.dcm", STORED, **tags)
    given_ = {"view": "CC"} if kind == "specimen" else {}
    with pytest.raises(Refusal) as caught:
        read_mammogram(path, keep=[other for other in Special if other != kind], **given_)
    assert caught.value.code == CODES.get(Special(kind), "special_image")
    assert MEANINGS[Special(kind)] in caught.value.reason
    kept = read_mammogram(path, keep=[kind], **given_)
    assert kept.provenance["special"] == kind
    np.testing.assert_array_equal(kept.stored, STORED)


def test_by_default_only_implants_are_kept(tmp_path: Path) -> None:
    for kind, tags in UNUSUAL:
        path = write_dicom(tmp_path / "a.dcm", STORED, **tags)
        if kind in ("implant", "implant_displaced"):
            assert read_mammogram(path).provenance["special"] == kind
        else:
            with pytest.raises(Refusal):
                read_mammogram(path)


def test_a_plain_view_is_nothing_special() -> None:
    plain = {"BreastImplantPresent": "NO", "QualityControlImage": "NO", "PaddleDescription": "18X24CM"}
    plain |= {"EstimatedRadiographicMagnificationFactor": "1.08", "ImageType": ["ORIGINAL", "PRIMARY", ""]}
    dataset = mammogram_dataset(STORED, **plain, ViewCodeSequence=_modified("399197002"))  # rolled lateral
    assert special_kinds(dataset, view_modifiers(dataset)) == ()


@pytest.mark.parametrize("paddle", ["FULL IMAGE 24X30", "IMAGING", "WHOLE_IMAGE", "MAGENTA", "DESPOT", "18X24 FLEX"])
def test_a_paddle_is_named_by_words_and_not_by_letters_inside_others(paddle: str) -> None:
    assert special_kinds(mammogram_dataset(STORED, PaddleDescription=paddle)) == ()


def test_the_middle_slice_of_a_tomosynthesis_stack_is_read_with_its_own_facts(tmp_path: Path) -> None:
    slices = [STORED // 3, STORED // 2, STORED, STORED // 4, STORED // 5]
    dataset = mammogram_dataset(
        STORED,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.13.1.3",
        NumberOfFrames=5,
        ImageLaterality=None,
        PixelData=b"".join(part.astype("<u2").tobytes() for part in slices),
    )
    dataset["PixelData"].VR = "OW"
    anatomy, measures, window, shared, frame = (Dataset() for _ in range(5))
    anatomy.FrameLaterality, measures.PixelSpacing = "R", [0.1, 0.1]
    window.WindowCenter, window.WindowWidth = 2000, 3000
    shared.FrameAnatomySequence, shared.PixelMeasuresSequence = [anatomy], [measures]
    frame.FrameVOILUTSequence = [window]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = [Dataset(), Dataset(), frame, Dataset(), Dataset()]
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(Refusal, match="unsupported_pixels: tomosynthesis"):
        read_mammogram(tmp_path / "a.dcm")
    mammogram = read_mammogram(tmp_path / "a.dcm", keep=["tomosynthesis"])
    np.testing.assert_array_equal(mammogram.stored, STORED)
    assert (mammogram.laterality, mammogram.spacing_mm) == ("R", (0.1, 0.1))
    assert mammogram.provenance["frame"] == "3 of 5"
    assert mammogram.presentation.voi_source() == "window 1 of 1: 2000, 3000"


def test_unknown_policies_are_named_with_what_is_allowed(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STORED)
    for wrong in ({"keep": ["spots"]}, {"for_processing": "sqrt"}, {"conflicts": "ignore"}):
        with pytest.raises(ValueError, match=next(iter(wrong.values()))[0][:4]):
            read_mammogram(path, **wrong)
        with pytest.raises(ValueError):
            ReadMammogramd(keys="image", **wrong)


def test_every_policy_changes_the_digest_and_survives_the_description() -> None:
    settings = [{}, {"keep": ["magnification"]}, {"for_processing": "log"}, {"conflicts": "flag"}]
    chains = [Compose([ReadMammogramd(keys="image", **each)]) for each in settings]
    chains.append(Compose([OrientChestWalld(keys="image", side_check="refuse")]))
    assert len({chain_digest(chain) for chain in chains}) == len(chains)
    for chain in chains:
        assert chain_digest(chain_from_description(describe_chain(chain))) == chain_digest(chain)
    same = Compose([ReadMammogramd(keys="image", keep=("implant_displaced", "implant"))])  # in any order
    assert chain_digest(same) == chain_digest(chains[0])


def _chain(side_check: str = "flag") -> Compose:
    steps = [kind(keys="image") for kind in (ReadMammogramd, ApplyWindowd, SegmentBreastd, CropToBreastd)]
    steps += [OrientChestWalld(keys="image", side_check=side_check), ResizeImaged(keys="image", image_size=48)]
    return Compose(steps)


@pytest.mark.parametrize("edge", ["left", "right"])
@pytest.mark.parametrize("side", ["L", "R"])
@pytest.mark.parametrize("orientation", [None, "A", "P"])
def test_the_side_is_checked_against_the_edge_that_the_breast_touches(tmp_path: Path, edge, side, orientation) -> None:
    stored = np.rint(breast_scene(200, 150, chest_wall=edge) * 4000).astype(np.uint16)
    tags = {} if orientation is None else {"PatientOrientation": [orientation, "L"]}
    item = {"image": str(write_dicom(tmp_path / "a.dcm", stored, ImageLaterality=side, **tags))}
    expected = {None: {"L": "left", "R": "right"}[side], "A": "left", "P": "right"}[orientation]
    outcome = prepare_item(_chain(), item)["provenance"]["side_check"]
    if expected == edge:
        assert outcome == "agrees"
        prepare_item(_chain("refuse"), item)
    else:
        assert outcome == ("PatientOrientation disagrees" if orientation else f"usual hanging of {side} disagrees")
        with pytest.raises(Refusal, match=f"side_conflict: the breast touches the {edge} edge"):
            prepare_item(_chain("refuse"), item)


def test_a_png_takes_its_side_from_the_manifest_and_is_checked_too(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", breast_scene(200, 150, chest_wall="right"))
    item = prepare_item(_chain(), {"image": str(path), "laterality": "L", "view": "CC"})
    assert item["provenance"]["side_check"] == "usual hanging of L disagrees"
