"""What pyproject.toml can't say: an editable install finds the study, the wheel leaves it out."""

from setuptools import setup
from setuptools.command.build_py import build_py


class WithoutStudy(build_py):
    """Build ibcore alone, unless the packages are only linked to."""

    def finalize_options(self) -> None:
        """Drop the study's packages from a wheel."""
        super().finalize_options()
        if not self.editable_mode:
            self.packages = [name for name in self.packages or [] if name.split(".")[0] == "ibcore"]


setup(cmdclass={"build_py": WithoutStudy})
