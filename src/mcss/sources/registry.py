"""The sources that `mcss import` reads. A new one is a file beside this and a line here."""

from mcss.sources.aist.sequences import Aist
from mcss.sources.aspset import Aspset
from mcss.sources.human36m.release import Human36M
from mcss.sources.mpi_inf_3dhp.sequences import MpiInf3dhp
from mcss.sources.source import Source
from mcss.sources.videos.video_folder import Videos

SOURCES: tuple[type[Source], ...] = (Videos, MpiInf3dhp, Aspset, Aist, Human36M)
"""All sources, in the order in which help lists them."""
