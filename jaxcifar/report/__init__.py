"""Reports: a finished, running or interrupted run as one HTML file, and runs compared.

run_files   what a work directory holds, and what of it is missing
page        a run's report            comparison  several runs'
charts      figures as SVG            html        the parts of a page
"""

from jaxcifar.report.page import write

__all__ = ["write"]
