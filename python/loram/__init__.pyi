from ._arrays import Spectrum as Spectrum
from ._arrays import schemes as schemes
from ._arrays import spectrum as spectrum
from ._callback import MagnitudeCallback as MagnitudeCallback
from ._initialize import initialize as initialize
from ._initialize import resume as resume
from ._load import load as load
from ._magnitude import Magnitude as Magnitude
from ._magnitude import magnitudes as magnitudes
from ._plan import Forecast as Forecast
from ._plan import plan as plan
from ._rate import FoundRate as FoundRate
from ._rate import find_learning_rate as find_learning_rate
from ._save import save as save

__version__: str
