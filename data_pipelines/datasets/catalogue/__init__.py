"""A catalogue of products: a folder of photographs and tables of attributes, from which queries are composed."""
