"""The main job as a story, with nothing faked: `blindpost demo`.

    run_demo(options) -> int        options: mail (list of paths), broker (URL or None), out (path or None)

stage.py has what all chapters share, chapters.py the blind relay's story, historical.py the same story with the global
PIN key; words.py has the teller's words, transcript.py shows them; processes.py and devices.py are the other programs.
Whatever does not come out as it should is said where it happens and again at the end, and makes the exit status 1.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blindpost.demo.story import DemoOptions

__all__ = ["run_demo"]


def run_demo(options: "DemoOptions") -> int:
    """Tell the story; see blindpost/demo/story.py. The other processes of the story do not load the teller."""
    from blindpost.demo import story

    return story.run_demo(options)
