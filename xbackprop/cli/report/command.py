"""``xbackprop report``: reads a run, and writes the page."""

from pathlib import Path

from xbackprop.cli.devices import choose_device
from xbackprop.cli.report.answers import judge
from xbackprop.cli.report.document import page
from xbackprop.cli.report.record import read_record
from xbackprop.cli.report_options import ReportOptions
from xbackprop.cli.run_folder import REPORT, check_place, write_whole


def run_report(options: ReportOptions) -> int:
    """Write a page about a run.

    Parameters
    ----------
    options : ReportOptions
        The request.

    Returns
    -------
    int
        Exit code 0.

    Raises
    ------
    CommandError
        For a folder without a run, and a file that cannot be written.
    """
    record = read_record(Path(options.run))
    path = record.folder / REPORT if options.out is None else Path(options.out)
    check_place(path)
    judged = judge(record, choose_device(options.device))
    write_whole(path, page(record, judged))
    if judged.why_not:
        print(f"note: no mistakes are told: {judged.why_not}")
    if not record.statistics:
        print("note: nothing of the layers is told: train with --record-statistics to keep it")
    print(path)
    return 0
