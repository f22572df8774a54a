"""Write the table of conditions of footage and label files into docs/real_footage.md, from the tests that make them.

    python scripts/write_footage_cases.py
    python scripts/write_footage_cases.py --results results.xml     # of pytest --junitxml, instead of running the tests

Each condition has tests that make a small file of that kind and check what becomes of it. A row is written only if
they pass.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from write_table import write_between

ROOT = Path(__file__).parents[1]

TIMES, DISPLAY, FOLDERS = "sources/test_footage_times", "video/test_display", "video/test_recordings"
LABELS, SOUND, GREY = "sources/test_label_variants", "video/test_sound_clocks", "video/test_grey_people"
SPELLINGS, TRACKS = "sources/test_label_spellings", "video/test_tracking"
CLOCKS, LAG, CROPS = "video/test_damaged_clocks", "video/test_sound_lag", "video/test_person_crops"

KEYPOINTS, IMAGES = "data/test_keypoint_files", "test_transparent_images"
BOXES, DOUBTS, ARRAYS = "sources/test_given_boxes", "sources/test_label_doubts", "models/test_model"

CASES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    # condition, what is done, file of the tests, beginnings of their names
    ("A camera dropped frames", "a missing view of their instants; others stay in step", TIMES, ("a_lost_picture",)),
    ("A variable frame rate", "images, labels, clicks and splits at the frames' own time stamps", TIMES,
     ("times_and_labels", "a_click_in_seconds", "labels_that_count")),
    ("A last frame that is shown for long", "the rate is one over the median step", TIMES, ("the_rate_is_one",)),
    ("Rates that differ a little (two phones)", "paired image by image if that comes to nothing over the length", TIMES,
     ("rates_that_come_to_nothing",)),
    ("Rates that differ (25 and 50)", "each instant takes the nearest image of every view, with a note", TIMES,
     ("rates_that_differ_pair", "views_of_other_rates")),
    ("Time stamps that jitter, or count whole milliseconds", "the rate is the one behind them", TIMES,
     ("stamps_that_jitter", "stamps_in_whole")),
    ("Pixels that are not square (HDV, DV, AVCHD)", "stretched to square pixels, before they are turned", DISPLAY,
     ("pixels_that_are_not", "a_turned_picture")),
    ("Rotated and mirrored video", "the whole display matrix is applied; mirroring is noted", DISPLAY,
     ("the_display_matrix",)),
    ("A size that changes within the file", "scaled to the first size; another shape is refused by name", DISPLAY,
     ("a_change_of_size",)),
    ("A cover image or thumbnails as the first stream", "the real video is read", DISPLAY, ("a_cover_picture",)),
    ("A colon in a path (10:30/left.mp4)", "opened as a file", DISPLAY, ("a_colon",)),
    ("A few frames that share a time stamp", "between their neighbours", FOLDERS, ("a_few_images_that_share",)),
    ("Clocks that are set back or leap, long pauses, joined transport streams",
     "evenly timed at the usual rate, with a note", CLOCKS,
     ("a_clock_that_is_set", "a_long_pause")),
    ("Slow motion of phones", "noted, with the command that restores the times", CLOCKS, ("predictions_note",)),
    ("A table of times beside the videos", "noted as not read, with the way out", TIMES, ("a_table_of_times",)),
    ("Reordered images in AVI", "numbered in the order in which they are shown", CLOCKS, ("reordered_images",)),
    ("Damaged or lost packets, a start within a group of images",
     "passed over: missing views of their instants; motion and predictions at the images' own times", CLOCKS,
     ("an_image_that_cannot", "a_recording_that_begins", "motion_lies", "predictions_are")),
    ("GoPro's chapters, with a camera's name before or behind them too", "joined in order", FOLDERS,
     ("gopro_chapters", "older_gopro", "chapters_are_known")),
    ("Clips numbered by one camera (DJI, AVCHD, Canon, Sony, Insta360, GoPro's loops)",
     "refused, with the command that joins them", FOLDERS,
     ("clips_that_one_camera",)),
    ("Folders of numbered images", "each is a view; a missing number is a dropped frame", FOLDERS,
     ("a_folder_of_numbered", "a_few_images")),
    ("Images named after their time (dates, clocks) or with the camera's number last; counters that begin anew",
     "in order, at the clock's rate; else the number that differs counts", FOLDERS, ("the_number_of_an_image",)),
    ("Folders of images whose numbers begin later in one view", "in step by the numbers of one clock or counter, with "
     "a note", FOLDERS, ("folders_of_images_with",)),
    ("Images of two views, or masks, in one folder", "refused, naming two of the same number", FOLDERS,
     ("why_a_folder",)),
    ("Images of 12 bits in files of 16", "as bright as those of 8 bits", ARRAYS, ("images_of_12",)),
    ("ts, 3gp, mxf, flv; HEIC and GIF", "read; named as left out", FOLDERS, ("more_endings", "files_of_other_kinds")),
    ("Decomposed Unicode names (NFD, macOS)", "composed, in the files and as typed", FOLDERS, ("names_are_composed",)),
    ("Files that share a stem (IMG_1.jpg, IMG_1.JPG)", "separate outputs; overlays are not taken as input", FOLDERS,
     ("outputs_of_files",)),
    ("Grey clothes in front of grey walls, greyscale and night cameras", "the whole person; shadows by texture",
     GREY, ("the_whole_person", "a_shadow_over", "a_grey_shirt", "a_shadow_on")),
    ("Dim, hazy and noisy footage, green night vision", "the contrast is stretched first; the whole person", GREY,
     ("the_crop_holds", "usual_footage", "the_range_of")),
    ("A person cut in pieces by what is behind them", "the pieces stay one person, also if the person stretches",
     TRACKS, ("pieces_that", "a_person_who_stretches")),
    ("Alpha, 16 bits, EXIF in frames, HD without stated colours", "as players show them", DISPLAY,
     ("a_picture_with_exif", "16_bits", "what_is_below", "colours_are")),
    ("A photo of the empty scene with EXIF", "turned as it says", CROPS, ("a_photo_of",)),
    ("One clap in a quiet room", "found, with confidence", LAG, ("one_clap", "a_few_claps", "common_sound")),
    ("Sounds without anything in common, hum, noise, a metronome", "not trusted: aligned by motion", LAG,
     ("sounds_that_have", "a_sound_that_repeats", "what_both")),
    ("Sound with lost, damaged or wrongly stamped packets", "every piece at its stamp", SOUND,
     ("lost_packets", "sound_goes_on", "sound_whose", "sound_of_joined")),
    ("Sound on a second track, or on one channel", "every track and channel is heard", SOUND, ("the_common_sound",)),
    ("Offsets of nearly the whole length", "found by sound, unless limited", SOUND, ("an_offset_of_nearly",)),
    ("A first view without sound", "the others are aligned by sound, and to it by motion", SOUND,
     ("views_that_heard", "a_chain")),
    ("TRC: padded header, spaces, decimal commas, other encodings", "read; a number is never a unit", LABELS,
     ("a_trc_with", "a_trc_of")),
    ("TRC: rounded times, more lines than stated", "times by DataRate; read with a note", LABELS,
     ("times_that_are", "more_lines")),
    ("TRC: other capitals, commas, milliseconds, no line X1, lost cells", "read", SPELLINGS,
     ("a_trc_is", "markers_that")),
    ("C3D: Y_SCREEN of Qualisys, lying people", "states the axis alone; mcss asks where the pose cannot tell", LABELS,
     ("y_screen",)),
    ("C3D: more than 255 points, points without names, no points", "read; left out; says what it holds", LABELS,
     ("a_c3d_of_more", "points_without", "a_c3d_without")),
    ("BVH: spaces and a common word in names (Rocketbox)", "a name runs to the end of its line", LABELS,
     ("names_of_bvh",)),
    ("BVH: decimal commas", "read", LABELS, ("a_bvh_may",)),
    ("BVH: other capitals, no space after Frames:, more lines than stated", "read; the last with a note", SPELLINGS,
     ("a_bvh_is",)),
    ("CSV: semicolons, decimal commas, tabs, sep=, capitals, UTF-16", "read", LABELS, ("csv_of_semicolons",)),
    ("CSV: columns such as Time (ms), Frame Number, X_Hip, Hip X (mm)", "read, in the unit stated", SPELLINGS,
     ("a_table_is_read",)),
    ("CSV: thousands, quoted decimal commas, N/A, -nan(ind), code pages", "read", SPELLINGS,
     ("decimal_commas", "words_for", "names_in_the_code")),
    ("CSV: times in thousandths without saying so", "recognised by the length of the video, with a note", SPELLINGS,
     ("times_without",)),
    ("CSV with a line per point", "read; two people in it are refused", SPELLINGS, ("a_table_with",)),
    ("CSV and TSV of Vicon Nexus, OptiTrack Motive, Qualisys", "read as exported", LABELS, ("exports_of",)),
    ("CSV: frames from 1", "taken as from 0, with a note that says how to change that", LABELS, ("frames_that_begin",)),
    ("9999999 or -16512 for lost markers", "no label; reported with their number", LABELS, ("codes_for_lost",)),
    ("CSV and TSV of capture systems: markers lost in a line, lines deleted, part of a take, unnamed trajectories",
     "a line is a sample, at its frame number; the first is the first image, with a note", DOUBTS,
     ("a_line_of", "lines_that_were", "deleted_lines", "the_first_sample", "a_trajectory_without")),
    ("A marker name twice; two people in a table", "refused, naming them", DOUBTS,
     ("a_name_that", "several_people")),
    ("Tracking markers on thighs and upper arms beside joints", "the joints count", DOUBTS,
     ("markers_on", "bones_that")),
    ("Poses without depth, or MediaPipe's from 0 to 1, as 3D labels", "refused; world landmarks are taken first",
     DOUBTS, ("points_without", "normalised_landmarks", "landmarks_in")),
    ("Arrays of 25 points (BODY_25, Kinect)", "in the order that makes a body", DOUBTS, ("an_array_of",)),
    ("Many more samples than images; inches without saying so", "noted with the likely rate; recognised by height",
     DOUBTS, ("many_more", "an_adult_in")),
    ("C3D at 29.97 Hz with analog data; TRC of CR CR LF or semicolons; BVH with two ends of a joint", "read", DOUBTS,
     ("a_c3d_whose", "the_cells_below", "a_trc_with", "a_joint_of")),
    ("Own predictions as labels (CSV, NPZ, TRC, BVH)", "read, the root at 0, 0, 0 included", LABELS,
     ("own_predictions", "a_pelvis_marker")),
    ("FreeMoCap, Anipose, DeepLabCut in 3D", "mapped to the joints by name; the head's top from the ears", LABELS,
     ("freemocap", "anipose", "deeplabcut")),
    ("2D keypoints of COCO tools, MMPose, OpenPose, DeepLabCut", "joints for --points, boxes for --boxes", KEYPOINTS,
     ("a_folder_of_openpose", "coco_results", "mmpose_and", "keypoints_that")),
    ("Keypoints of AlphaPose, MMPose's inferencer and older OpenPose", "read; other numbers of points are refused",
     KEYPOINTS, ("the_files_of", "alphaposes_other", "a_number_of_points")),
    ("OpenPose's BODY_25 and BODY_25B", "told apart by the lengths of bones", KEYPOINTS, ("the_two_orders",)),
    ("Keypoints of images such as 000003_cam2.jpg, or renamed by Roboflow", "the number that differs counts",
     KEYPOINTS, ("images_are_known", "the_name_before")),
    ("COCO with categories or annotations without keypoints, or of animals", "those of people", KEYPOINTS,
     ("categories_and",)),
    ("HDF5 of DeepLabCut: 2D, 3D, several individuals", "read by name, without unpickling; the largest individual",
     KEYPOINTS, ("the_hdf5", "of_several", "the_fixed", "points_in_3d", "names_are_read", "hdf5_of_other")),
    ("Labels of DeepLabCut, of several individuals and since version 2.2", "read; the largest individual", KEYPOINTS,
     ("labels_whose", "without_a_likelihood")),
    ("Keypoints from 0 to 1, of a copy of another size, or of images from 1", "refused; scaled if the size is stated; "
     "noted", BOXES, ("keypoints_", "images_that_begin", "boxes_and_points")),
    ("Transparent images with an EXIF orientation", "turned, and laid on grey", IMAGES, ("a_transparent_image",)),
)  # fmt: skip


def main() -> None:
    """Run the tests of all conditions, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--results", type=Path, nargs="+", help="files that pytest --junitxml wrote for these tests")
    reports = parser.parse_args().results
    with tempfile.TemporaryDirectory() as folder:
        if reports is None:
            reports = [Path(folder) / "results.xml"]
            files = sorted({str(ROOT / "tests" / f"{file}.py") for _, _, file, _ in CASES})
            subprocess.run(
                [sys.executable, "-m", "pytest", "-q", f"--junitxml={reports[0]}", *files], cwd=ROOT, check=False
            )
        passed = {test: ok for report in reports for test, ok in passed_tests(report).items()}
    lines = ["| condition | what is done | tests |", "|---|---|---|"]
    for condition, done, file, names in CASES:
        outcomes = {
            name: [ok for test, ok in passed.items() if test.startswith(f"{file}::test_{name}")] for name in names
        }
        broken = [name for name, found in outcomes.items() if not found or not all(found)]
        if broken:
            raise SystemExit(f"{condition}: the tests {', '.join(broken)} in {file}.py do not pass; nothing is written")
        lines.append(f"| {condition} | {done} | {sum(map(len, outcomes.values()))} |")
    note = "Written by `scripts/write_footage_cases.py`: a row per condition, with the number of its tests, which pass."
    write_between(ROOT / "docs" / "real_footage.md", "conditions", "\n".join([note, "", *lines]))
    print("\n".join(lines))


def passed_tests(results: Path) -> dict[str, bool]:
    """Return whether each test of a report of pytest passed, by ``folder/file::name``."""
    found = {}
    for case in ElementTree.parse(results).iter("testcase"):
        file = case.attrib["classname"].removeprefix("tests.").replace(".", "/")
        found[f"{file}::{case.attrib['name']}"] = not any(
            child.tag in ("failure", "error", "skipped") for child in case
        )
    return found


if __name__ == "__main__":
    main()
