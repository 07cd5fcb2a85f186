from tests.support.control_plane import control_plane as control_plane
