"""The words that generated names are made of: adjectives, and surnames of scientists and engineers."""

from __future__ import annotations

_ADJECTIVES = """
able agile amber ample apt artful astute avid balmy blithe bold boring brave breezy bright brisk calm candid
careful cheerful civil clear clever cordial cosy crisp curious daring dapper deft diligent eager earnest easy
elated elegant exact fair fearless festive fleet fluent focused fond frank free fresh frugal gallant gentle
genuine glad gleeful golden graceful grateful handy happy hardy hearty honest hopeful humble jaunty jolly jovial
joyful keen kind lively loyal lucid lucky mellow merry mighty mindful modest neat nimble noble open patient
peaceful placid playful plucky polite practical precise prompt proud prudent quick quiet quirky radiant rapid
ready robust serene sharp silent sincere skilful smart smooth snappy snug sober solid spirited steady sturdy
subtle sunny sure swift tender thrifty tidy tough tranquil trusty upbeat valiant vibrant vigilant vivid warm
watchful willing wise witty zealous zesty
"""

_SURNAMES = """
abel agnesi alhazen allen ampere anning archimedes aristarchus armstrong avicenna babbage bacon baird banach
banneker bardeen bartik becquerel bell berners bernoulli berzelius bessel bhabha bohr boltzmann boole born bose
boyle brahe brahmagupta braun brunel burnell cannon cantor carnot carson carver cauchy cavendish cayley celsius
cerf chandrasekhar chatelet clarke cockcroft coulomb crick curie dalton darwin descartes dijkstra diophantus
dirac doppler easley eckert edison ehrlich einstein elion engelbart eratosthenes erdos euclid euler faraday
fermat fermi feynman fibonacci fischer fleming fourier franklin fresnel galileo galois galvani gauss germain
gibbs godel goeppert goldberg goodall gutenberg hamilton hamming harvey hawking heaviside heisenberg helmholtz
henry herschel hertz hilbert hodgkin hoover hopper hubble huygens hypatia jacobi jacquard jemison jenner johnson
joliot joule kalman kapitsa karpinski keldysh keller kelvin kepler khayyam khorana khwarizmi knuth koch
kolmogorov kovalevskaya lagrange lamarr landau laplace lavoisier leakey leavitt leibniz lewin liskov lorentz
lovelace mach maxwell mayer mccarthy mcclintock meitner mendel mendeleev mercator mestorf michelson mirzakhani
moore morse napier nash neumann newton nightingale nobel noether noyce ohm oppenheimer otto papin pare pascal
pasteur pauling payne perlman pike planck poincare poisson priestley ptolemy pythagoras rabin raman ramanujan
rayleigh ride riemann ritchie roentgen rubin rutherford sagan salk sammet schrodinger shannon shaw shirley
shockley siemens sinoussi snyder somerville stallman stevin stonebraker swanson swartz swirles tesla thales
thompson torricelli torvalds turing vaughan venter villani volta wallace watt weber wegener wiener wiles wilson
wing wozniak wright wu yalow yonath zuse zworykin
"""

ADJECTIVES: tuple[str, ...] = tuple(_ADJECTIVES.split())
SURNAMES: tuple[str, ...] = tuple(_SURNAMES.split())
